"""What can be seen of a run, from what costs nothing to the whole of it: by this, options show that they live."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from tunesmith.config.load import load
from tunesmith.data.keeping.material import prepare
from tunesmith.data.reading.places import places
from tunesmith.errors import Refusal
from tunesmith.model.hub import locate, locate_data
from tunesmith.model.load import load_tokenizer
from tunesmith.run import Run
from tunesmith.training.before import ask_another, before_learning, own_oracle
from tunesmith.training.progress import Progress
from tunesmith.training.train import build, refuse, train

CLOCK = re.compile(r"\d+(\.\d+)? (s left|tokens/s|s\b)|output[-\d]*|in \d+ s")


class Seen:
    """Runs by their words, each looked at once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.looks = folder, {}, 0

    def levels(self, words: tuple[str, ...]) -> Iterator[Any]:
        """What is seen of a run, the dearer the later: its data, its steps, the whole. A refusal is the last."""
        for level in (rendered, stepped, whole):
            if (words, level) not in self.known:
                self.known[words, level] = self.look(level, words)
            yield self.known[words, level]
            if isinstance(self.known[words, level], str):
                return

    def look(self, level, words: tuple[str, ...]) -> Any:
        run = load(Run, None, words).value
        before = Path.cwd()
        self.looks += 1
        place = self.folder / f"{self.looks}"
        place.mkdir()
        try:
            AcceleratorState._reset_state(True)  # it keeps the first run's number format for the whole process
            os.chdir(place)
            refuse(run)
            return level(run)
        except Refusal as said:
            return f"refused: {CLOCK.sub('', str(said))}"
        finally:
            os.chdir(before)


def material_of(run: Run, say=lambda text: None):
    base = locate(run.model.path)
    return base, prepare(run, places(run.data, locate_data), tokenizer_of(base), say)


@cache
def tokenizer_of(base: Path):
    return load_tokenizer(base)


def rendered(run: Run) -> Any:
    """The sequences that are trained on, what is measured, what was counted and said of the data."""
    said: list[str] = []
    _, material = material_of(run, said.append)
    rows = [(tokens.ids, tokens.learn, tokens.weights, tokens.label) for tokens in material.sequences]
    return rows, [example.gold for example in material.test], material.counts, said


def stepped(run: Run) -> Any:
    """Which weights learn, every step's figures, how much was computed, and what is there at the end and saved."""
    base, material = material_of(run)
    another = ask_another(run, material, [material.test, material.validation], silent)
    loop = build(run, base, material, Progress(quiet=True))
    before_learning(run, loop, [], another or own_oracle(run, loop, "the tests' own", silent), silent)
    model, computed = loop.policy.model, [0]
    kinds = {type(part): part for part in loop.policy.trunk.modules() if type(part).__name__.endswith("Attention")}
    for module in kinds.values():  # of a block, which is computed again with gradient checkpointing
        module.register_forward_hook(lambda *_: computed.__setitem__(0, computed[0] + 1))
    steps = [(step.loss, step.grad_norm, step.learning_rate, step.tokens, step.skipped) for step in loop.fit()]
    gradients = [name for name, weight in loop.weights.items() if weight.grad is not None]
    if loop.answers:
        loop.answers.scorer.close()
    run.method.save(model, Path("saved"))
    files = {file.name: digest(file.read_bytes()) for file in Path("saved").rglob("*.safetensors")}
    remembered = {name: digest(value.numpy().tobytes()) for name, value in run.method.state(model).items()}
    learning = {name: digest(weight.detach().float().numpy().tobytes()) for name, weight in loop.weights.items()}
    return learning, steps, computed, gradients, files, remembered, list(map(torch.Tensor.numel, loop.weights.values()))


def whole(run: Run) -> Any:
    """What a run says, measures and leaves behind."""
    with redirect_stderr(StringIO()) as said:
        result = train(run)
    folder = Path(result.run)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
    files = [re.sub(r"tfevents.*", "tfevents", name) for name in files]
    recorded = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    metrics = [re.sub(r'"(tokens_per_second|machine/\w+)": [\d.]+', "", line) for line in recorded.splitlines()]
    sent = [CLOCK.sub("", line) for line in said.getvalue().splitlines()]
    return files, metrics, sent, result.before, result.after, folder.name if run.output else None


def silent(text: str) -> None:
    """Tell nobody."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
