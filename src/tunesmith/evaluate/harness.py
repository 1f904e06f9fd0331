"""Our model under EleutherAI's lm-eval: how its tasks are asked, and what comes of it ("A framework for few-shot
language model evaluation", Gao et al. 2024, doi:10.5281/zenodo.12608602)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.example import Message
from ..data.rendering.render import Renderer
from ..errors import RecipeError
from ..model.engine import Engine, Ids, greedy, reading, sampling
from .harness_tasks import quiet, sandboxed
from .metrics import Interval, proportion

TAIL = 8
"""Tokens more than a text has characters, of an answer's end, in which it is looked for."""
TAKEN = {"until", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "do_sample", "temperature"}
"""What is known of how an answer is to be written."""


@dataclass(frozen=True)
class Result:
    """What a task's figure came to."""

    task: str
    measure: str
    value: float
    stderr: float | None
    """As lm-eval has it."""
    interval: Interval | None
    """95%; of shares of rows by drawing these anew, else 1.96 standard errors to each side."""
    rows: int
    shots: int
    version: str
    """The task's own."""
    higher_is_better: bool | None


@dataclass(frozen=True)
class Asking:
    """How tasks are asked."""

    shots: int | None = None
    """Solved examples before each question; as the task says unless given."""
    limit: int | None = None
    """So many of a task's first rows."""
    chat: bool = False
    """Questions are written by the model's chat template."""
    rows: int = 8
    """Rows in one forward pass."""


def ask(model, renderer: Renderer, tasks: dict[str, Any], how: Asking) -> list[Result]:
    """Ask a model what tasks ask."""
    from lm_eval.evaluator import evaluate  # pyright: ignore[reportMissingImports] - an extra

    seed()
    for task in tasks["tasks"].values():
        with_shots(task, how.shots)
    with reading(model), quiet(), sandboxed():
        asked = asked_by(Engine(model, renderer.tokenizer), renderer, how.rows)
        chat = {"apply_chat_template": how.chat, "fewshot_as_multiturn": how.chat}
        found = evaluate(lm=asked, task_dict=tasks, limit=how.limit, log_samples=False, **chat)
    return list(results(found))


def seed() -> None:
    """Begin lm-eval's random numbers as it does itself, so that the same solved examples are shown."""
    random.seed(0), np.random.seed(1234), torch.manual_seed(1234)


def with_shots(task, shots: int | None) -> None:
    """Show solved examples: so many, or as many as the task says; none where it rules them out."""
    said = task.get_config("num_fewshot")
    if said is None or (shots is not None and said != 0):
        task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=1234)


def refuse_ways(tasks: dict[str, Any]) -> None:
    """Refuse tasks whose answers are to be written in a way that is not known here, or by running them."""
    for name, task in tasks["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise RecipeError(f"--harness: {name} runs programs that the model has written, which is not done here")
        if getattr(task, "MULTIMODAL", False):
            raise RecipeError(f"--harness: {name} shows images or sounds; take tasks of texts")
        said = task.get_config("generation_kwargs") or {}
        drawn = said.get("do_sample") and task.get_config("output_type") == "generate_until"
        if drawn and (odd := sorted(said.keys() - TAKEN)):
            raise RecipeError(f"--harness: {name} sets {', '.join(odd)}; answers are drawn by temperature alone here")


# --- what comes of it -------------------------------------------------------------------------------------------------


def results(found: dict[str, Any]) -> Iterator[Result]:
    """lm-eval's figures, each by itself."""
    counts, rows = found["n-samples"], {**found["results"], **found.get("groups", {})}
    for task, figures in rows.items():
        n = counts[task]["effective"] if task in counts else figures.get("sample_len", 0)
        better = found.get("higher_is_better", {}).get(task, {})
        for key, value in figures.items():
            name, _, way = key.partition(",")
            if not way or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = number(figures.get(f"{name}_stderr,{way}"))
            label = name if way == "none" else f"{name} ({way})"
            yield Result(
                task, label, float(value), stderr, spread(float(value), stderr, n), n,
                found["n-shot"].get(task, 0), str(found["versions"].get(task, "")), better.get(name),
            )  # fmt: skip


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def spread(value: float, stderr: float | None, n: int) -> Interval | None:
    """How far chance may have moved a figure."""
    if stderr is None:
        return None
    share = 0 <= value <= 1 and n > 1 and math.isclose(stderr, math.sqrt(value * (1 - value) / (n - 1)), abs_tol=1e-9)
    return proportion(value * n, n, 0.0).interval if share else (value - 1.96 * stderr, value + 1.96 * stderr)


def made_with() -> str:
    """lm-eval's version."""
    return version("lm_eval")


# --- the model as lm-eval asks it -------------------------------------------------------------------------------------


def asked_by(engine: Engine, renderer: Renderer, rows: int):
    """lm-eval's own model of transformers, to which ours says what it makes of tokens: under its adapter, and with what
    stands before every sequence."""
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports] - an extra

    class Ours(HFLM):
        def __init__(self) -> None:
            # no module: theirs would tie its weights anew, and ties what an adapter has parted
            stands = SimpleNamespace(device=engine.device, config=engine.model.config, name_or_path="")
            super().__init__(stands, "causal", tokenizer=renderer.tokenizer, batch_size=rows, max_length=room(engine))

        def _model_call(self, inps: Tensor, attn_mask: Any = None, labels: Any = None) -> Tensor:
            return logits(engine, inps)

        def _model_generate(
            self, context: Tensor, max_length: int, stop: Sequence[str], attention_mask: Tensor, **how: Any
        ) -> Tensor:
            pick = sampling(how["temperature"]) if how.get("do_sample") and how.get("temperature") else greedy
            prompts = [row[there.bool()].tolist() for row, there in zip(context, attention_mask, strict=True)]
            said = write(engine, prompts, max_length - context.shape[1], pick, stop)
            width, pad = max(map(len, said)), self.tokenizer.pad_token_id
            filled = torch.tensor([ids + [pad] * (width - len(ids)) for ids in said], dtype=context.dtype)
            return torch.cat([context, filled.to(context.device)], 1)

        def written(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return dialogue(renderer, chat_history, add_generation_prompt)

        apply_chat_template = written

    return Ours()


def room(engine: Engine) -> int:
    """The longest sequence, in tokens, beside those of a soft prompt."""
    known = getattr(engine.model.config.get_text_config(), "max_position_embeddings", None) or 2048
    return known - (engine.soft.length if engine.soft else 0)


def logits(engine: Engine, ids: Tensor) -> Tensor:
    """[R, T, words] what comes after each token of rows that are filled up on the right, where nothing looks."""
    rows = torch.tensor([engine.begun(row) for row in ids.tolist()], device=engine.device)
    place = torch.arange(rows.shape[1], device=engine.device).expand(len(rows), -1)
    return engine.read(rows, place).logits[:, rows.shape[1] - ids.shape[1] :]


def write(engine: Engine, prompts: Sequence[Ids], most: int, pick: Callable, stop: Sequence[str]) -> list[Ids]:
    """What is answered, as tokens, until each answer has ended or holds one of the texts that end it."""
    said: list[Ids] = [[] for _ in prompts]
    tail = max(map(len, stop), default=0) + TAIL
    ended: set[int] = set()
    for step in engine.steps(engine.prefill([engine.begun(one) for one in prompts], []), most, pick):
        for row, token in step:
            said[row].append(token)
            end = engine.tokenizer.decode(said[row][-tail:])
            if any(one in end for one in stop):
                ended.add(row)
        if ended >= {row for row, _ in step}:
            break
    return said


def dialogue(renderer: Renderer, turns: Sequence[dict[str, str]], answer: bool) -> str:
    """Turns as the chat template writes them, up to where the answer begins, or behind what it begins with."""
    messages = [Message(turn["role"], turn["content"]) for turn in turns]
    if answer:
        return renderer.writer.text(messages, answer=True)
    *before, begun = messages
    return renderer.writer.text(before, answer=True) + begun.content
