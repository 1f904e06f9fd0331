"""Laws of the house: imports go one way, each thing is done in one place, files can be read in one sitting."""

import ast
import re
from pathlib import Path

import pytest
import torch

import tunesmith
from tunesmith.attn.base import attn
from tunesmith.config.describe import field_docs
from tunesmith.data.formats.base import format_
from tunesmith.data.lint.base import rule
from tunesmith.methods.base import method
from tunesmith.notices.base import notice
from tunesmith.objectives._online import Rolled
from tunesmith.objectives.base import objective
from tunesmith.optimizers.base import optimizer
from tunesmith.precision.base import precision
from tunesmith.rewards.base import reward
from tunesmith.rope.base import rope_scaling
from tunesmith.samplers.base import sampler
from tunesmith.schedules.base import schedule
from tunesmith.trackers.base import tracker

SRC = Path(tunesmith.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
APART = {
    "methods", "objectives", "precision", "rope", "attn", "optimizers", "schedules", "rewards", "trackers", "notices",
}  # fmt: skip
ROOMS = [
    {"secret", "errors", "files", "cache", "machine", "start", "owner", "follower", "code", "script", "config"},
    {"samplers"},
    APART | {"data"},
    {"run", "runs", "passport"},
    {"model"},
    {"evaluate"},
    {"rollout", "plan"},
    {"training"},
    {"tuned", "migrate", "grid"},
    {"compare", "delivery", "serving"},
    {"cli", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def room_of(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imported(file: Path):
    """The rooms of ours that a file imports when it runs, each with its line."""
    package = ("tunesmith", *file.relative_to(SRC).parts[:-1])
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {inner for node in typing for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in skipped:
            above = package[: len(package) - node.level + 1] if node.level else ()
            path = [*above, *(node.module or "").split(".")]
            if path[0] == "tunesmith":
                rooms = [path[1]] if path[1:2] != [""] and len(path) > 1 else [name.name for name in node.names]
                yield from ((node.lineno, room) for room in rooms)


def test_imports_go_one_way():
    wrong = [
        f"{file.relative_to(SRC)}:{line} imports {room}"
        for file in FILES
        if room_of(file) != "__init__"
        for line, room in imported(file)
        if FLOOR[room] > FLOOR[room_of(file)]
    ]
    assert wrong == []


def test_rooms_on_one_floor_that_must_not_know_each_other():
    wrong = [
        f"{file.relative_to(SRC)}:{line} imports {room}"
        for file in FILES
        if room_of(file) in APART
        for line, room in imported(file)
        if room in (APART | {"data"}) - {room_of(file)}
    ]
    assert wrong == []


ALONE = {
    "one forward pass": (r"(?<!def )\b(self\.)?(model|policy\.model|bare)\(", {"model/policy.py", "model/engine.py"}),
    "one loop": (r"\.backward\(|optimizer\w*\.step\(", {"training/loop.py", "plan/rehearse.py"}),  # this takes no step
    "one renderer": (r"(apply_chat|render_jinja|_compile_jinja)_template\(", {"data/rendering/chat_template.py"}),
    "one loader of weights": (r"(Model\w*|family)\.from_pretrained\(", {"model/load.py", "model/demo.py"}),
    "one division by the count": (r"unscale_gradients\(", {"training/loop.py"}),
    "one place that ends the process": (r"sys\.exit\(", {"cli/__init__.py"}),
}  # fmt: skip


@pytest.mark.parametrize("law", ALONE)
def test_each_thing_is_done_in_one_place(law):
    pattern, homes = ALONE[law]
    found = {
        str(file.relative_to(SRC)): number
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    }
    assert found.keys() <= homes, {file: number for file, number in found.items() if file not in homes}
    assert found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_a_file_is_read_in_one_sitting(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{file}:{node.lineno} {node.name}"


ENTRIES = [
    (registry.kind, name, entry)
    for registry in (
        method,
        objective,
        precision,
        rope_scaling,
        attn,
        optimizer,
        sampler,
        schedule,
        reward,
        format_,
        rule,
        tracker,
        notice,
    )
    for name, entry in registry.all().items()
]


@pytest.mark.parametrize(("kind", "name", "entry"), ENTRIES, ids=[f"{kind} {name}" for kind, name, _ in ENTRIES])
def test_every_entry_says_what_it_is_and_documents_each_option(kind, name, entry):
    from dataclasses import fields

    assert entry.__doc__ and not entry.__doc__.startswith(entry.__name__ + "(")
    assert {field.name for field in fields(entry)} <= field_docs(entry).keys()


@pytest.mark.parametrize("entry", objective.all().values(), ids=list(objective.all()))
def test_an_objective_is_arithmetic(entry):
    """It makes no tensors of its own, holds no masks, and asks by name for what it looks at."""
    source = (SRC / "objectives" / f"{entry.__module__.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    assert not re.search(r"torch\.(zeros|ones|tensor|empty|arange|full)\b|attention_mask|\.model\b|\.mean\(\)$", source)
    from tunesmith.model.policy import Policy

    made, known = entry(), set()
    if made.targets == "prompts":  # what was found out when answers were given
        numbers = {name: torch.zeros(16) for name in ("old", "reference", "value")}
        each = torch.ones(16)
        answers = Rolled(torch.rand(16), each.long(), made.num_generations, each > 0, numbers)
        known = {"old", *made.advantages(answers)}
    assert made.looks()
    assert all(hasattr(Policy, look) or look in known for look in made.looks())
