"""The model that objective.reference names: asked while no other is in memory, and let go of."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import passport
from ..config.load import dump
from ..data.rendering.tokens import Tokens
from ..errors import CheckpointError, RecipeError, Refusal
from ..machine import accelerator, facts, settle_in
from ..methods.full import Full
from ..objectives.base import Referred
from .adapter import adapters, refuse_strangers
from .hub import locate
from .load import load_model, load_tokenizer
from .policy import Policy
from .reference import Asker, Reference, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..run import Run

SETTING = "objective.reference"


@dataclass
class Memory:
    """What a model said that is not there any more."""

    source: Asker | None
    """The model, for as long as it is there."""
    answers: dict[str, Reference] = field(default_factory=dict)

    def ask(self, sequences: Sequence[Tokens], wanted: Sequence[int]) -> Reference:
        """What it said of the wanted sequences; once it is gone, only what it was asked before."""
        key = digest(sequences, wanted)
        if self.source is not None:
            self.answers[key] = self.source.ask(sequences, wanted)
        return self.answers[key]


def another(run: Run) -> Path | None:
    """The folder of the model that a run compares with, if it names one."""
    name = run.objective.reference if isinstance(run.objective, Referred) else None
    if name is None:
        return None
    for folder in (Path(name) / "adapter", Path(name)):
        if (folder / "adapter_config.json").is_file():
            raise RecipeError(
                f"{SETTING}: {name} is an adapter, expected a whole model; leave {SETTING} out and name the adapter in"
                " model.adapters (or method.adapter, to go on with it): the reference is then the model with it"
            )
    with about():
        return locate(name)


def beside(run: Run, base: Path) -> dict[str, Path]:
    """The folders that decide a run beside its base model, by the settings that name them."""
    folder, found = another(run), adapters(run)
    refuse_strangers(found, base)
    return found | ({SETTING: folder} if folder else {})


@contextmanager
def present(folder: Path, run: Run, say: Callable[[str], None]) -> Iterator[Memory]:
    """A memory of the model in a folder, which is asked within it and gone behind it."""
    settle_in()
    held = {name: value for name, value in dump(run.model).items() if name not in ("path", "adapters")}
    with about():
        model: Any = load_model(folder, run.model.precision, changes=run.model.changes)[0]
    device = accelerator(run.train).device
    policy = Policy(model.to(device).eval())
    key = {"base": passport.digest(passport.inputs(folder, {}, say)["base"]), "model": held}
    memory = Memory(Asker(policy, Full(), policy.layout(), key | facts(device), say))
    try:
        yield memory
    finally:
        memory.source = None
        del model, policy
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def same_words(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse a model that knows other tokens than the one that learns."""
    with about():
        theirs, ours = load_tokenizer(folder).get_vocab(), tokenizer.get_vocab()
    if theirs == ours:
        return
    unlike = min((word for word in {**theirs, **ours} if theirs.get(word) != ours.get(word)), key=repr)
    raise RecipeError(
        f"{SETTING}: {folder} knows other tokens than the model that learns ({len(theirs):,} and {len(ours):,};"
        f" {unlike!r} is {theirs.get(unlike, 'unknown')} and {ours.get(unlike, 'unknown')}), so that their"
        " log-probabilities cannot be compared; name a model with the same tokenizer"
    )


@contextmanager
def about() -> Iterator[None]:
    """Within it, what is refused of a model is said of the setting that named it."""
    try:
        yield
    except (RecipeError, CheckpointError) as error:
        sentence = str(error).removeprefix("model.path: ")
        raised: type[Refusal] = type(error)
        raise raised(f"{SETTING}: {sentence}") from None
