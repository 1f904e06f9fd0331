"""What the grid tries things on: a tiny model with random weights, its tokenizer, a teacher, rows of each kind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from ..data.keeping.material import Material, prepare
from ..data.reading.places import places
from ..errors import DataError
from ..model.hub import locate_data
from ..model.load import load_tokenizer, quiet
from ..objectives.base import Objective
from ..rewards.regex import Regex
from ..run import Data, Model, Run, Source

ROLES = ("system", "user", "assistant", "tool")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
PAIRS = list(zip(NUMBERS, (*NUMBERS[1:], "nine"), strict=True))

ROWS = {
    "dialogues": [
        {"messages": [{"role": "user", "content": f"after {one}?"}, {"role": "assistant", "content": two}]}
        for one, two in PAIRS
    ],
    "pairs": [{"prompt": f"after {one}?", "chosen": two, "rejected": f"{one} again"} for one, two in PAIRS],
    "judged": [
        {"prompt": f"after {one}?", "completion": two, "label": number % 2 == 0}
        for number, (one, two) in enumerate(PAIRS)
    ],
    "texts": [{"text": f"{one} comes before {two}"} for one, two in PAIRS],
    "labelled": [{"text": f"{one} is {two}", "label": "abc"[n % 3]} for n, (one, two) in enumerate(PAIRS)],
}
"""Eight uneven rows of each kind. What an objective learns is the first kind that it can read."""
FIRST = {
    "answers": "dialogues",
    "pairs": "pairs",
    "ranked": "pairs",
    "liked": "judged",
    "text": "texts",
    "label": "labelled",
    "mixed": "dialogues",
    "prompts": "dialogues",
}
"""By what an objective learns, the kind that is tried first."""


SIGNS: Any = Regex
REWARDS = (SIGNS(pattern="[a-z]"), SIGNS(pattern="[A-Z]", weight=0.5), SIGNS(pattern="[ -@]", weight=0.25))
"""What answers are worth that are drawn at random: two seldom the same."""
DRAWN = {"num_generations": 2, "max_completion_length": 5}


class Tiny:
    """A folder with the model, another to learn from, and the rows, and what was made of these."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base, self.teacher = folder, folder / "base", folder / "teacher"
        self.materials: dict[str, Material] = {}
        for place, sizes in ((self.base, {}), (self.teacher, TEACHER)):
            make_tokenizer().save_pretrained(place)
            with quiet():
                make_model(**sizes).save_pretrained(place)
        for kind, rows in ROWS.items():
            written = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{kind}.jsonl").write_text(written, encoding="utf-8")
        self.tokenizer = load_tokenizer(self.base)

    def options(self, aim: type[Objective], steps: int) -> dict[str, Any]:
        """What an objective must be told: whom it learns from, and of answers that it asks for how many, so short that
        it is quick, and that all steps learn from the first ones: the loss of others would say nothing."""
        known = {one.name for one in fields(cast(Any, aim))}
        told: dict[str, Any] = {"teacher": str(self.teacher)} if "teacher" in known else {}
        return told | (DRAWN | {"num_iterations": steps} if aim.targets == "prompts" else {})

    def material(self, run: Run) -> Material:
        """The rows that a run's objective learns from, prepared once."""
        name = run.objective.name
        if name not in self.materials:
            self.materials[name] = self.first_that_fits(run.objective)
        return self.materials[name]

    def first_that_fits(self, objective: Objective) -> Material:
        first = FIRST.get(objective.targets, next(iter(ROWS)))
        refusals = {}
        for kind in sorted(ROWS, key=lambda kind: kind != first):
            also = (Source(path=str(self.folder / "labelled.jsonl")),) if objective.targets == "mixed" else ()
            data = Data(path=str(self.folder / f"{kind}.jsonl"), eval_size=0.0, on_lint="warn", also=also)
            run = Run(model=Model(path=str(self.base)), data=data, objective=objective)
            try:
                return prepare(run, places(data, locate_data), self.tokenizer, lambda text: None)
            except DataError as refusal:
                refusals[kind] = str(refusal)
        raise LookupError(f"the grid has no rows that {objective.name} learns from: {first}: {refusals[first]}")


@contextmanager
def tiny() -> Iterator[Tiny]:
    """A tiny model in a folder that is gone afterwards, with what is kept of its rows."""
    from contextlib import ExitStack

    with TemporaryDirectory(prefix="tunesmith-grid-") as folder, ExitStack() as stack:
        before = os.environ.get("TUNESMITH_HOME")
        os.environ["TUNESMITH_HOME"] = str(Path(folder) / "home")  # else each grid would leave its rows in the cache
        stack.callback(put_back, "TUNESMITH_HOME", before)
        yield Tiny(Path(folder))


def put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def make_tokenizer():
    """Bytes as words, and a word for each role: nothing that would have to be learnt from text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|end|>", *(f"<|{role}|>" for role in ROLES)]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>", additional_special_tokens=special[2:]
    )
    made.chat_template = TEMPLATE
    return made


TEACHER = {"hidden_size": 48, "num_hidden_layers": 1, "initializer_range": 0.3, "seed": 1}
"""Another width and depth, other weights, and surer of what it says."""


def make_model(seed: int = 0, **sizes: Any):
    """A Qwen2 of two blocks: a common architecture that has biases, which some methods train, and a tied head."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256} | sizes
    config = Qwen2Config(
        vocab_size=264,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        **shape,
    )
    model = Qwen2ForCausalLM(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.02)  # fresh ones are zero, and would say nothing if they were lost
    return model
