"""Another model, from which one learns what to say: found, compared and loaded; it learns nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, RecipeError, Refusal
from ..run import Run
from .divergence import Divergence
from .foreign import read_config
from .hub import locate
from .load import load_model, load_tokenizer

if TYPE_CHECKING:
    import torch

    from .policy import Policy

SETTING = "objective.teacher"


@dataclass
class Teacher:
    """What a model learns from, and how far apart the two are."""

    policy: Policy
    beta: float
    temperature: float

    @staticmethod
    def of(policy: Policy, aim: Any) -> Teacher:
        """A teacher for an objective that looks at divergence. Of one that draws answers, both models' logits are
        divided by its temperature as they are made."""
        if aim.targets != "prompts":
            return Teacher(policy, aim.beta, aim.temperature)
        policy.temperature = aim.temperature
        return Teacher(policy, aim.beta, 1.0)

    def judge(self, head, after) -> Divergence:
        """How states of the teacher are read, given its head."""
        return Divergence(head, after, self.beta, self.temperature)


def models(run: Run) -> dict[str, Path]:
    """The folders of other models that a run's objective looks at, by the settings that name them."""
    with about():
        return {setting: locate(name) for setting, name in run.objective.models().items()}


@contextmanager
def about() -> Iterator[None]:
    """Within it, what is refused of a model is said of the setting that named it."""
    try:
        yield
    except (RecipeError, CheckpointError) as error:
        raised: type[Refusal] = type(error)
        raise raised(f"{SETTING}: {str(error).removeprefix('model.path: ')}") from None


def find(run: Run, base: Path) -> Path | None:
    """The folder of a run's teacher, if there is to be one, which must have the words of the model in `base`."""
    if "divergence" not in run.objective.looks():
        return None
    name = run.objective.models().get(SETTING)
    if name is None:
        raise RecipeError(
            f"{SETTING}: {run.objective.name} learns from another model: name its folder, org/name, or demo/NAME"
        )
    ours = read_config(base).get_text_config().vocab_size
    with about():
        folder = locate(name)
        theirs = read_config(folder).get_text_config().vocab_size
    if theirs != ours:
        raise RecipeError(
            f"{SETTING}: {name} knows {theirs:,} tokens and {run.model.path} knows {ours:,};"
            " a teacher must have the model's own vocabulary"
        )
    refuse_other_words(run, folder, base)
    return folder


def refuse_other_words(run: Run, folder: Path, base: Path) -> None:
    """Refuse a teacher for whom the numbers of tokens stand for other words."""
    ours = load_tokenizer(base).get_vocab()
    with about():
        theirs = load_tokenizer(folder).get_vocab()
    wrong = min((n for word, n in ours.items() if theirs.get(word) != n), default=None)
    if wrong is not None:
        said = {n: word for word, n in theirs.items()}.get(wrong)
        mine = {n: word for word, n in ours.items()}[wrong]
        raise RecipeError(
            f"{SETTING}: token {wrong} is {mine!r} for {run.model.path} and {said!r} for the teacher; a teacher must"
            " have the model's own tokenizer"
        )


def load_teacher(run: Run, base: Path, device: torch.device) -> Teacher | None:
    """A run's teacher in memory, if there is to be one."""
    from .policy import Policy

    folder = find(run, base)
    if folder is None:
        return None
    with about():
        model: Any = load_model(folder)[0]
    policy = Policy(model.to(device).eval().requires_grad_(False))
    return Teacher.of(policy, run.objective)
