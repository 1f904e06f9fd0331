"""What must hold in a cell: it learns, only what should move moves, its numbers are right, and what is saved says the
same."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.batch import pad
from ..data.rendering.tokens import Tokens
from ..errors import RecipeError, Refusal
from ..methods.base import method
from ..model.adapter import mergeable
from ..model.load import save_tuned
from ..objectives.base import Beside, objective
from ..precision.base import precision
from ..run import Data, Eval, Model, Run, Train
from ..schedules.constant import Constant
from ..training.before import before_learning, own_oracle
from ..training.doctor import apart, stir
from ..training.loop import Loop
from ..training.progress import Progress
from ..training.train import build, refuse
from . import plain
from .answered import Overheard, judged_before
from .cells import Cell
from .reload import ASKED, FAILED, HEARD, SAID
from .rounding import unrounded
from .tiny import REWARDS, Tiny

STEPS = 6


class Fault(Exception):
    """What does not hold in a cell."""


@dataclass
class Outcome:
    """What a cell came to."""

    name: str
    status: str = "ok"
    """ok, refused or failed."""
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    """How far things were apart."""
    rounded: bool = False
    """Whether it computes with less than 32 bits."""


class Slack(NamedTuple):
    """How far two ways may be apart, as a share of the larger."""

    gradient: float
    logits: float


EXACT, ROUNDED = Slack(1e-4, 1e-4), Slack(5e-2, 2e-2)
"""By 32 bits, and by 16. Where products are rounded to 8 (LLM.int8), a number that lies between two steps falls to
either side for no more than another order of adding up, by a step of 1/127 of the row's largest: two loadings that are
right may then be as far apart as all this rounding moves what is said, which is measured in each cell, and no farther.
"""


def run_of(cell: Cell, tiny: Tiny) -> Run:
    aim = objective[cell.objective]
    return Run(
        model=Model(path=str(tiny.base), precision=precision[cell.precision]()),
        data=Data(path="the grid's own rows"),
        method=method[cell.method](),
        objective=aim(**tiny.options(aim, STEPS)),
        rewards=REWARDS if aim.targets == "prompts" else (),
        train=Train(max_steps=STEPS, learning_rate=5e-3, lr_scheduler_type=Constant(), per_device_train_batch_size=64),
        eval=Eval(enabled=False),
    )


def refusal(cell: Cell, tiny: Tiny) -> str:
    """Why a cell is refused before anything is read, if it is."""
    try:
        refuse(run_of(cell, tiny))
    except Refusal as said:
        return str(said)
    return ""


def examine(cell: Cell, tiny: Tiny, folder: Path) -> Outcome:
    """Train a cell and look at it; what must be looked at in a new process is saved in `folder`."""
    outcome = Outcome(cell.name)
    try:
        run = run_of(cell, tiny)
        with ready(run, cell, tiny) as loop:
            outcome.rounded = rounded(run, loop.policy.model)
            outcome.figures |= compare(run, loop, tiny, folder / "plain")
            outcome.figures["loss"] = learn(loop)
            ask(run, loop, tiny, folder)
    except Refused as said:
        return Outcome(cell.name, "refused", str(said))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a cell, the others are looked at
        outcome.status, outcome.reason = "failed", worded(error)
    return outcome


class Refused(Exception):
    """A cell is refused before anything is learnt."""


def silent(text: str) -> None:
    """What is said goes nowhere."""


@contextmanager
def ready(run: Run, cell: Cell, tiny: Tiny) -> Iterator[Loop]:
    """The loop of a cell, before its first step."""
    try:
        refuse(run)
        loop = build(run, tiny.base, tiny.material(run), Progress(quiet=True))
        lay_out(loop, cell.batch)
        before_learning(run, loop, [], own_oracle(run, loop, "the grid's own", silent), silent)
    except Refusal as said:
        raise Refused(str(said)) from None
    try:
        yield loop
    finally:
        if loop.answers:
            loop.answers.scorer.close()


def worded(error: Exception) -> str:
    said = str(error).strip().split("\n")[0]
    return said if isinstance(error, Fault) else f"{type(error).__name__}: {said}"


def lay_out(loop: Loop, batch: str) -> None:
    """Take batches of the kind that is to be tried."""
    if batch == "padded":
        loop.layout = pad
        if loop.answers:
            loop.answers.layout = pad
    elif loop.layout is pad:
        raise RecipeError("batches: this model mixes packed rows up, so that its batches are padded")


def rounded(run: Run, model: Any) -> bool:
    """Whether something is computed with less than 32 bits; weights may be held in less."""
    numbers = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    return run.model.precision.rounds or numbers != {torch.float32}


def compare(run: Run, loop: Loop, tiny: Tiny, folder: Path) -> dict[str, float]:
    """How far the first step's gradient is from that of plain PEFT and plain torch, as a share of its length, and what
    else was compared.

    Both are taken with weights none of which is zero: a fresh LoRA would have half a gradient.
    """
    tuned = loop.policy.model
    other = plain.plain_model(run, tuned, tiny.base, run.objective.outputs(tiny.material(run).labels), folder)
    begins_like(other, loop)
    allowed = (ROUNDED if rounded(run, tuned) else EXACT).gradient
    given, figures = looked_back(run, loop, other, allowed)
    start = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    stir(loop.weights)
    theirs = plain.gradient(other, loop.objective, given, plain.take_over(other, loop.weights))
    ours = gradient(loop)
    with torch.no_grad():
        for name, weight in loop.weights.items():
            weight.copy_(start[name])
    # what is weighed by advantages sums up to nothing, of terms that are not
    if (loss := float((ours[0] - theirs[0]).abs() / theirs[0].abs().clamp(min=0.1))) > allowed:
        raise Fault(f"the first loss is {float(ours[0]):.6g}, and by a plain forward {float(theirs[0]):.6g}")
    whole = float(torch.stack([slope.float().norm() for slope in theirs[1].values()]).norm())
    for name, slope in theirs[1].items():
        gap = float((ours[1][name].float() - slope.float()).norm())
        if gap > allowed * max(float(slope.float().norm()), 0.1 * whole):
            raise Fault(f"the gradient of {name} is not that of plain autograd: apart by {gap:.2g} of {whole:.2g}")
    slopes = apart(*(torch.cat([one.flatten().float() for one in part[1].values()]) for part in (ours, theirs)))
    return figures | {"gradient": max(loss, slopes)}


def looked_back(run: Run, loop: Loop, other: Any, allowed: float) -> tuple[plain.Given, dict[str, float]]:
    """What is known before the first step, of a plain model; answers that are learnt from are the loop's, and must
    have been drawn as the plain model would."""
    if loop.answers is None:
        strangers = loop.rows.strangers
        return plain.look_back(other, run, list(loop.sequences), list(strangers.sequences) if strangers else None), {}
    heard = loop.answers.scorer = Overheard(loop.answers.scorer)
    loop.hear(0)
    plain.take_over(other, loop.weights)
    given, away = judged_before(other, run, list(loop.rows.sequences), heard)
    if away > allowed:
        raise Fault(f"answers are drawn {away:.2g} nats a token from what a plain forward says of them")
    return given, {"drawn": away}


def begins_like(other: Any, loop: Loop) -> None:
    """Refuse a method that has changed what does not learn: a plain model has the same there."""
    ours, theirs, weights = hashes_of(loop), hashes(other), loop.weights
    if missing := weights.keys() - theirs.keys():
        raise Fault(f"a plain model has no {min(missing)}")
    heads = [name for name in theirs if "original_module" in name]  # new ones at random, and nobody reads them
    for name in sorted(theirs.keys() - weights.keys() - set(heads)):
        if ours.get(name) != theirs[name]:
            raise Fault(f"{name} does not learn, and is not what it is in a plain model")


def gradient(loop: Loop) -> tuple[Tensor, dict[str, Tensor]]:
    """The first step's loss and gradient, as the loop comes to them, both divided."""
    tallies, _ = loop.gradient(0)
    loss = tallies["loss"]
    slopes = {name: weight.grad / loss.count for name, weight in loop.weights.items() if weight.grad is not None}
    loop.optimizer.zero_grad(set_to_none=False)
    return torch.tensor(loss.mean()), slopes


def learn(loop: Loop) -> float:
    """Take the steps: the loss falls, and just what learns has moved. How far it falls."""
    before = hashes_of(loop)
    losses = [step.loss for step in loop.fit()]
    if not losses[-1] < losses[0]:
        raise Fault(f"the loss does not fall: {', '.join(f'{loss:.5g}' for loss in losses)}")
    after = hashes_of(loop)
    moved = {name for name in before if before[name] != after[name]}
    if still := loop.weights.keys() - moved:
        raise Fault(f"{min(still)} learns and has not moved ({len(still)} of {len(loop.weights)} have not)")
    if others := moved - loop.weights.keys():
        raise Fault(f"{min(others)} does not learn and has moved ({len(others)} of these have)")
    return losses[0] - losses[-1]


def hashes_of(loop: Loop) -> dict[str, str]:
    """The same of the model that a loop trains, and of a critic's head beside it."""
    critic = loop.policy.value_head
    beside = {f"value_head.{name}": one for name, one in hashes(critic).items()} if critic else {}
    return hashes(loop.policy.model) | beside


def hashes(model: Any) -> dict[str, str]:
    """A hash of the numbers of every parameter and buffer, quantised ones too, by name."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: hashlib.sha256(content(value.detach())).hexdigest() for name, value in held.items()}


def content(value: Tensor) -> bytes:
    inside = getattr(value, "__tensor_flatten__", None)
    if inside:  # torchao's are made of several
        parts, _ = inside()
        return b"".join(content(getattr(value, part)) for part in parts)
    return value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def ask(run: Run, loop: Loop, tiny: Tiny, folder: Path) -> None:
    """Save what was learnt, and what it says, for a new process to say the same."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tuned, tokens = loop.policy.model, loop.sequences[0]
    outputs = run.objective.outputs(tiny.material(run).labels)
    save_tuned(tuned, run.method, tiny.tokenizer, folder, str(tiny.base), run.model.precision)
    said = says(loop, tokens, outputs)
    merges = hasattr(tuned, "peft_config") and mergeable(tuned.peft_config["default"])
    names = {"base": str(tiny.base), "outputs": outputs, "ids": tokens.ids, "precision": run.model.precision.name}
    allowed = (ROUNDED if rounded(run, tuned) else EXACT).logits
    if run.model.precision.rounds:
        with unrounded(tuned):
            allowed = EXACT.logits + far(said, says(loop, tokens, outputs))
    more: dict[str, Any] = {"beside": isinstance(outputs, Beside), "merges": merges, "allowed": allowed}
    (folder / ASKED).write_text(json.dumps(names | more), encoding="utf-8")
    save_file({"said": said.contiguous()}, folder / SAID)


def says(loop: Loop, tokens: Tokens, outputs: tuple[str, ...]) -> Tensor:
    """[T, V] or [C] what the trained model says of a sequence."""
    batch = pad([tokens])
    with loop.policy.trying():
        begun = loop.policy.begun(batch)
        return loop.policy.score(batch)[0] if outputs else loop.policy.run(begun.batch).logits[0, begun.at].float()


def listen(outcome: Outcome, folder: Path) -> None:
    """Compare what a new process heard with what was said, and forget both."""
    from safetensors.torch import load_file

    try:
        allowed = json.loads((folder / ASKED).read_text(encoding="utf-8"))["allowed"]
        if (folder / FAILED).exists():
            raise Fault(f"saved, it cannot be loaded: {(folder / FAILED).read_text(encoding='utf-8')}")
        said, heard = load_file(folder / SAID)["said"], load_file(folder / HEARD)
        outcome.figures["reloaded"] = far(said, heard["loaded"])
        if outcome.figures["reloaded"] > allowed:
            raise Fault(f"loaded in a new process it says something else: by {outcome.figures['reloaded']:.2g}")
        if "merged" in heard:
            outcome.figures["merged"] = far(heard["apart"], heard["merged"])
            if outcome.figures["merged"] > EXACT.logits:
                raise Fault(f"merged it says something else: by {outcome.figures['merged']:.2g}")
    except (Fault, OSError) as error:
        outcome.status, outcome.reason = "failed", worded(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def far(one: Tensor, other: Tensor) -> float:
    """How far logits are apart at most, as a share of the largest."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max())
