"""A finished run in memory: ask it, ask the model it came from, measure it again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config.load import dump
from .data.example import Answer, Example, Message
from .data.keeping.material import Material, prepare
from .data.reading.places import places
from .data.rendering.render import Renderer
from .data.rendering.tokens import Tokens, TooLong
from .data.task import Task
from .errors import CheckpointError, RecipeError
from .evaluate.evaluate import Examiner, Measured
from .machine import facts, to_ask
from .methods.full import Full
from .model.adapter import locate_adapter, under_adapter
from .model.engine import Engine, reading, sampling
from .model.hub import locate, locate_data
from .model.load import hushed, load_model, load_tokenizer, load_tuned, pad_as
from .model.policy import Policy
from .model.reference import Asker
from .model.teacher import load_teacher
from .objectives.base import Beside
from .passport import read
from .run import Run
from .runs import RunFolder
from .training.before import ask_another
from .training.online import answers

if TYPE_CHECKING:
    from torch import Tensor


def load_run(folder: str | Path, words: Sequence[str] = ()) -> Tuned:
    """Load what a run learnt; `words` such as `eval.max_samples=100` change its recipe for what is done with it."""
    opened = RunFolder(Path(folder))
    return Tuned(opened, opened.recipe(tuple(words)).value)


@dataclass
class Tuned:
    """A tuned model and the recipe that made it."""

    folder: RunFolder
    run: Run

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells apart; none for a model that writes."""
        return self.run.objective.outputs(tuple(self.folder.facts.get("labels", ())))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it tells of texts, each with its part of the head."""
        known = self.folder.facts.get("tasks", ())
        return tuple(Task(**{**one, "labels": tuple(one["labels"])}) for one in known)

    @cached_property
    def tokenizer(self):
        for name in ("adapter", "model"):
            if (self.folder.path / name).is_dir():
                return load_tokenizer(self.folder.path / name)
        raise CheckpointError(f"{self.folder.path}: holds neither adapter/ nor model/; was the run finished?")

    @cached_property
    def model(self) -> Any:
        base = locate(self.run.model.path) if (self.folder.path / "adapter").is_dir() else self.folder.path
        settings = self.run.model
        parts = settings.precision, self.labels, settings.adapters, settings.changes
        model = load_tuned(self.folder.path, base, *parts)
        if self.labels:
            pad_as(self.tokenizer, model)
        return model

    @cached_property
    def untouched(self):
        """The model before tuning, where it is another one in memory."""
        settings = self.run.model
        return to_ask(load_model(locate(settings.path), settings.precision, (), settings.adapters, settings.changes)[0])

    @contextmanager
    def side(self, base: bool) -> Iterator[Any]:
        """The tuned model, or the one it came from: the same weights with the adapter off, or if need be a second."""
        if not base:
            yield self.model
        elif (self.folder.path / "adapter").is_dir() and self.run.method.leaves_base:
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.untouched

    def stream(
        self, messages: Sequence[Message], max_new_tokens: int = 256, temperature: float = 0.0, base: bool = False
    ) -> Iterator[str]:
        """The answer to a dialogue, piece by piece."""
        self.refuse_to_write()
        prompt = Renderer(self.tokenizer, self.run.data).prompt(messages)
        with self.side(base) as model:
            pick = sampling(temperature) if temperature > 0 else None
            yield from Engine(model, self.tokenizer).stream(prompt, max_new_tokens, pick)

    def chat(self, text: str, max_new_tokens: int = 256, temperature: float = 0.0, base: bool = False) -> str:
        """The answer to one message."""
        return "".join(self.stream([Message("user", text)], max_new_tokens, temperature, base))

    def refuse_to_write(self) -> None:
        """Raises RecipeError if it is no model that writes."""
        if self.scores:
            raise RecipeError(
                f"{self.folder.path}: this run scores answers and writes none; in Python ask"
                " load_run(...).score(prompt, answer)"
            )
        if not self.writes:
            raise RecipeError(f"{self.folder.path}: this run tells classes apart and writes no answers; use classify")

    def score(self, prompt: str | Sequence[Message], answer: str, whole: bool = False) -> float:
        """A reward model's score of an answer; that of a better one is higher. Two scores differ by the log-odds that
        the one is better than the other. With `whole`, what would be cut to data.max_length is refused (TooLong)."""
        if not self.scores:
            raise RecipeError(f"{self.folder.path}: this run has not learnt to score answers; train objective=reward")
        messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        example = Example(prompt=messages, answers=(Answer((Message("assistant", answer),)),))
        policy = Policy(self.model)
        tokens = self.sequence(example, "answers", whole)
        batch = policy.layout()([tokens]).to(next(self.model.parameters()).device)
        with reading(self.model):
            return float(policy.score(batch))

    def sequence(self, example: Example, targets: Literal["answers", "label"], whole: bool) -> Tokens:
        """An example as the model is given it: cut to data.max_length, or refused where it should be whole and is
        longer. Raises NoTarget, of which TooLong is one."""
        data, longest = self.run.data, self.run.data.max_length
        data = replace(data, max_length=sys.maxsize) if whole else data
        [tokens] = Renderer(self.tokenizer, data).render(example, targets)
        if len(tokens.ids) > longest:
            raise TooLong(len(tokens.ids), 0, longest)
        return tokens

    @property
    def writes(self) -> bool:
        """Whether it writes answers."""
        return not self.labels or isinstance(self.labels, Beside)

    @property
    def scores(self) -> bool:
        """Whether it is a reward model."""
        return self.run.objective.targets == "ranked"

    def classify(self, text: str) -> dict[str, float]:
        """The probability of each class, by the names that the head has for them."""
        found = self.tell(text)
        each = [
            {f"{name}: {key}" if len(found) > 1 else key: chance for key, chance in chances.items()}
            for name, chances in found.items()
        ]
        return {key: chance for chances in each for key, chance in chances.items()}

    def tell(self, text: str, whole: bool = False) -> dict[str, dict[str, float]]:
        """What it tells of a text, by task: the probability of each class, or the score. With `whole`, a text that
        would be cut to data.max_length is refused (TooLong)."""
        if self.scores or not self.labels:
            raise RecipeError(f"{self.folder.path}: this run has not learnt to tell classes apart; train one that has")
        policy = Policy(self.model)
        tokens = self.sequence(Example(text=text, label=""), "label", whole)
        batch = policy.layout()([tokens]).to(next(self.model.parameters()).device)
        with reading(self.model):
            head = policy.score(batch)[0]
        return {task.name: chances(task, head[task.outputs]) for task in self.tasks if task.size}

    def evaluate(self, say=lambda text: None) -> Measured:
        """Measure it on the held-out rows of its recipe."""
        run = self.run
        material = prepare(run, places(run.data, locate_data), self.tokenizer, say)
        policy = Policy(self.model)
        policy.teacher = load_teacher(run, locate(run.model.path), policy.device)
        layout = policy.layout()
        own = answers(run, material, policy, layout, say)
        examiner = Examiner(material, run.objective, run.eval, layout, material.test, own.tried if own else None)
        if own:
            if own.beginning and not own.beginning.off:
                own.beginning = None  # the weights that are here have learnt
            with closing(own.scorer):
                return examiner.measure(policy)
        self.look_back(examiner, material, say)
        return examiner.measure(policy)

    def look_back(self, examiner: Examiner, material: Material, say: Callable[[str], None]) -> None:
        """Find out what the objective wants to know of the model as it was before the run, or of another."""
        run = self.run
        if memory := ask_another(run, material, [material.test], say):
            examiner.look_back(memory, run.data.max_length)
            return
        with self.before() as model:
            policy = Policy(model)
            key = {"base": read(self.folder.path)["hashes"]["base"], "begun": run.method.adapter}
            key |= {"model": dump(run.model)}
            asker = Asker(policy, Full(), examiner.layout, key | facts(policy.device), say)
            examiner.look_back(asker, run.data.max_length)

    @contextmanager
    def before(self) -> Iterator[Any]:
        """The model as it was when the run began, with the adapter that it went on from."""
        if self.run.method.adapter:
            with hushed():
                begun = under_adapter(self.untouched, locate_adapter(self.run.method.adapter, "method.adapter"))
            yield begun.eval()
            return
        with self.side(base=True) as model:
            yield model


def chances(task: Task, own: Tensor) -> dict[str, float]:
    """What a task's outputs say: the probability of each class, one of which it is or each by itself, or the score."""
    if task.kind == "score":
        return {"score": float(own[0])}
    said = own.sigmoid() if task.kind == "several" else own.softmax(-1)
    return dict(zip(task.labels, said.tolist(), strict=True))
