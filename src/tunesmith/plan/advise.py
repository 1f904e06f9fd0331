"""What is wise for a recipe, by rules that stand in advice.yaml, and where the recipe says otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..config.layers import values
from ..config.load import dump
from ..errors import Refusal
from .table import table

if TYPE_CHECKING:
    from ..run import Run

Facts = dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """What a rule says of a key."""

    rule: str
    key: str
    value: Any
    """What is recommended."""
    low: float | None
    high: float | None
    among: tuple[Any, ...]
    """The values, or the range of them, that a rule has nothing against."""
    of: str
    """What of the recipe the range is of: the key, or a figure such as the effective batch."""
    got: Any
    origin: str
    en: str
    zh: str
    source: str

    @property
    def conflict(self) -> bool:
        """Whether the recipe is outside of it."""
        if self.among:
            return self.got not in self.among
        if not isinstance(self.got, int | float) or isinstance(self.got, bool):
            return False
        slack = 1e-9 * abs(self.got)
        return not (self.low or 0) - slack <= self.got <= (math.inf if self.high is None else self.high) + slack

    @property
    def range(self) -> str:
        if self.among:
            return " | ".join(map(word, self.among))
        return f"{word(self.low)} - {word(self.high)}"

    def sentence(self, chinese: bool) -> str:
        """What is said of a conflict."""
        figure = self.key if self.of == self.key else f"{self.key} ({self.of})"
        if chinese:
            said = f"{figure} 为 {word(self.got)}（{self.origin}）；建议 {word(self.value)}，范围 {self.range}。"
            return f"{said}{self.zh}（{self.source}）"
        return (
            f"{figure} is {word(self.got)} ({self.origin}); {word(self.value)} is wise, {self.range} usual. {self.en}"
            f" ({self.source})"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"conflict": self.conflict}


def word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def circumstances(run: Run, parameters: float | None = None, rows: int | None = None, **more: Any) -> Facts:
    """A recipe's settings by their path, and what rules ask of it besides; `more` is what no recipe tells: far, device,
    room, bf16, encoder."""
    said = {".".join(key): value for key, value in values(dump(run))}
    facts = {path.removesuffix(".name"): value for path, value in said.items()}
    train, named = run.train, {source.task for source in (run.data, *run.data.also) if source.task}
    tasks = len(named) or 1 + sum(source.max_samples is None for source in run.data.also)  # the others are replay
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    facts |= {"batch": batch, "tasks": tasks, "sources": 1 + len(run.data.also)}
    facts |= {"adapter": run.method.detachable, "targets": run.objective.targets}
    if rows and run.data.max_samples:
        rows = min(rows, run.data.max_samples)
    if train.packing or train.max_tokens_per_batch:
        del facts["batch"]  # is counted in tokens
    facts |= {"rows": rows} if rows is not None else {}
    facts |= length(run, rows if "batch" in facts else None)
    if train.warmup_steps < 1:
        facts["warmup"] = train.warmup_steps
    elif "steps" in facts:
        facts["warmup"] = train.warmup_steps / facts["steps"]
    if (rank := facts.get("method.r")) and run.method.name == "lora":
        facts["scale"] = (facts.get("method.lora_alpha") or 2 * rank) / (
            math.sqrt(rank) if facts["method.use_rslora"] else rank
        )
    facts |= {"parameters": parameters} if parameters is not None else {}
    facts |= {key: value for key, value in more.items() if value is not None}
    if parameters is not None and "room" in facts:
        facts["filled"] = held(run, parameters) / 2**30 / facts["room"]
    return facts


def length(run: Run, rows: int | None) -> Facts:
    """How many steps a run has, how many of them see all rows once, and how often these are seen, as far as that is
    known: of batches that are counted in tokens the number is not."""
    train, found = run.train, {}
    if train.max_steps > 0:
        found["steps"] = train.max_steps
    if rows:
        batches = math.ceil(rows / train.per_device_train_batch_size)
        once = math.ceil(batches / train.gradient_accumulation_steps) * getattr(run.objective, "repeats", 1)
        found |= {"epoch_steps": once, "steps": found.get("steps", max(1, train.num_train_epochs * once))}
    if train.num_train_tokens:  # by which the run ends, whenever that is
        return {}
    if train.max_steps <= 0:
        found["epochs"] = train.num_train_epochs
    elif rows:
        found["epochs"] = train.max_steps / found["epoch_steps"]
    return found


SOME = 4096
"""A side of the matrix by which it is told how much room quantised weights take."""


def held(run: Run, parameters: float) -> float:
    """Bytes of the weights that stay where they are computed with, on a GPU."""
    precision, most = run.model.precision, run.model.max_memory
    each = 4.0 if precision.name == "fp32" else 2.0
    if precision.quantised:
        each = sum(precision.room(SOME * SOME, SOME)) / SOME**2
    return min(parameters * each, math.inf if most is None else most * 1e9)


def advise(run: Run, origins: Mapping[str, str], facts: Facts) -> list[Advice]:
    """What the rules say of a recipe, a key once; the last rule that holds counts."""
    found: dict[str, Advice] = {}
    for rule in table("advice")["rules"]:
        of = rule.get("of", rule["key"])
        if of not in facts or not all(holds(test, facts.get(path)) for path, test in rule["when"].items()):
            continue
        key, value = named(rule, facts)
        made = Advice(
            rule=rule["id"],
            key=key,
            value=value,
            low=rule.get("low"),
            high=rule.get("high"),
            among=tuple(rule.get("among", ())),
            of=of,
            got=facts[of],
            origin=origins.get(key, "default"),
            en=rule["en"],
            zh=rule["zh"],
            source=rule["source"],
        )
        found[rule["key"]] = made
    return list(found.values())


def named(rule: dict[str, Any], facts: Facts) -> tuple[str, Any]:
    """The key that a rule is of, and what it recommends for it: passes over the rows are steps, where these say how
    long a run is; a batch that is too large before anything is added up is made smaller itself."""
    key, value, each = rule["key"], worth(rule["value"], facts), "train.per_device_train_batch_size"
    if rule.get("of") == "batch" and facts[each] > rule["high"]:
        return each, max(1, rule["value"]["up"][0] // facts[key])
    if key == "train.num_train_epochs" and facts["train.max_steps"] > 0:
        return "train.max_steps", max(1, int(value * facts["epoch_steps"]))
    return key, value


COMPARED = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}


def holds(test: Any, value: Any) -> bool:
    """Whether a figure passes a test: a value, a list of which it is one, or comparisons, all of which hold."""
    if value is None:
        return False
    if isinstance(test, list):
        several = [compared(one, value) for one in test]
        return all(several) if None not in several else value in test
    found = compared(test, value)
    return value == test if found is None else found


def compared(test: Any, value: Any) -> bool | None:
    """What a comparison such as "< 1e4" says; nothing if the test is none."""
    if not isinstance(test, str):
        return None
    sign = next((sign for sign in COMPARED if test.startswith(sign)), None)
    if sign is None:
        return None
    if not isinstance(value, int | float):
        return False
    return bool(COMPARED[sign](value, float(test[len(sign) :])))


def worth(value: Any, facts: Facts) -> Any:
    """A recommended value, worked out where it depends on the recipe."""
    match value:
        case {"times": [str(path), int(by) | float(by)]}:
            return float(f"{facts[path] * by:.3g}") if isinstance(by, float) else facts[path] * by
        case {"root": [str(path), int(by)]}:
            return max(1, round(by * math.sqrt(facts[path])))
        case {"up": [int(whole), str(path)]}:
            return max(1, -(-whole // facts[path]))
        case {"the": str(path)}:
            return facts[path]
    return value


def counted(run: Run) -> int | None:
    """The rows of a recipe's data, if these are here."""
    from ..data.reading.places import places
    from ..data.reading.source import read
    from ..model.hub import locate_data

    try:
        return sum(1 for one in places(run.data, locate_data) for _ in read(one.files.get("train", [])))
    except Refusal:
        return None


# --- what a model knew before ---


@dataclass(frozen=True)
class Keep:
    """Something that keeps more of what a model knew before it was trained, and costs something."""

    rule: str
    words: tuple[str, ...]
    """What to add to a recipe, as key=value."""
    en: str
    zh: str
    source: str

    @property
    def said(self) -> str:
        return " ".join(self.words)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def keeps(facts: Facts) -> list[Keep]:
    """What there is against forgetting, of a recipe of these facts."""
    found = []
    for rule in table("advice")["keeps"]:
        if all(holds(test, facts.get(path)) for path, test in rule["when"].items()):
            words = tuple(f"{key}={word(worth(value, facts))}" for key, value in rule["set"].items())
            found.append(Keep(rule["id"], words, rule["en"], rule["zh"], rule["source"]))
    return found


# --- into a recipe ---


def settled(text: str, conflicts: Callable[[str], list[Advice]]) -> tuple[str, list[Advice]]:
    """A recipe's text with what is advised, until nothing is objected to: one value may ask for another."""
    done: dict[str, Advice] = {}
    for _ in range(ROUNDS):
        found = conflicts(text)
        if not found:
            break
        text = applied(text, found)
        done = {one.key: one for one in found} | done  # of what is advised twice, what stood there first is told
    return text, list(done.values())


ROUNDS = 4


def applied(text: str, advice: list[Advice]) -> str:
    """A recipe's text with what is advised written into it, marked `# advisor`; the rest stays as it is, but for the
    options of a choice that is made otherwise."""
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 2**16, True
    tree = yaml.load(text) or CommentedMap()
    for one in advice:
        *above, key = one.key.split(".")
        room = tree
        for step in above:
            if not isinstance(room.get(step), CommentedMap):
                named = {"name": room[step]} if room.get(step) is not None else {}
                room[step] = CommentedMap(named)
            room[step].fa.set_block_style()
            room = room[step]
        rest = behind(room, key)
        room[key] = one.value
        room.ca.items.pop(key, None)
        room.yaml_add_eol_comment(f"advisor: {one.rule}{rest}", key)
    out = StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def behind(room: Any, key: Any) -> str:
    """What stands on the lines behind a value and is said of what follows: ruamel.yaml has it at the value's end."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    value, found = room.get(key) if isinstance(room, CommentedMap) else room[key], room.ca.items.get(key)
    if isinstance(value, CommentedMap | CommentedSeq) and value and not value.fa.flow_style():
        return behind(value, list(value)[-1] if isinstance(value, CommentedMap) else len(value) - 1)
    token = found and found[2 if isinstance(room, CommentedMap) else 0]
    _, line, rest = token.value.partition("\n") if token else ("", "", "")
    return f"{line}{rest}".rstrip("\n")
