"""What the head says of target tokens, without ever holding the logits of more than a few of them.

Letters of shapes: M tokens, C of them at once, V words, H width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 2**26
"""Size of the logits that are held at once."""


class After(NamedTuple):
    """What becomes of a head's output y on its way to logits: `softcap tanh(scale y / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, made: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the head's output, in its place; and how fast the cap lets them move, as [C, V]."""
        logits = made if self.scale == 1 else made.mul_(self.scale)
        if not self.softcap:
            return logits, None
        level = logits.div_(self.softcap).tanh_()
        bend = 1 - level.square()
        return level.mul_(self.softcap), bend

    def slope_(self, slope: Tensor, bend: Tensor | None) -> Tensor:
        """The slope by the head's output of what has this slope by the logits, in its place."""
        if bend is not None:
            slope.mul_(bend)
        return slope if self.scale == 1 else slope.mul_(self.scale)


class Way(NamedTuple):
    """How tokens are looked at: which values are wanted, of which logits, how many tokens at once."""

    wants: tuple[str, ...]
    after: After
    chunk: int


def linear_loss(
    states: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    wants: Sequence[str] = ("logp",),
    after: After | None = None,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Values of each token, [M] in float32 (float64 of float64 states), by name.

    `logp` is the log-probability of the target, `entropy` that of the softmax, `uniform` the mean log-probability of
    all words, `normaliser` the logarithm of the sum of all exponentiated logits. `states` is [M, H], `targets` [M]
    int64 below V, else ValueError. The gradient of each value is made together with it, `chunk` tokens at a time;
    nothing of M times V is kept. A head that is not a plain `nn.Linear` is computed twice instead.
    """
    plain = head if isinstance(head, nn.Linear) and type(head) is nn.Linear else None
    words = plain.weight.shape[0] if plain and plain.weight.is_floating_point() else None
    if words and len(targets):
        lowest, highest = int(targets.min()), int(targets.max())
        if lowest < 0 or highest >= words:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"the target {wrong} is not among the {words} words of the model's head")
    way = Way(tuple(wants), after or After(), chunk or max(1, CHUNK_BYTES // (4 * (words or 2**15))))
    if plain and words:
        found: Any = LinearLoss.apply(states, plain.weight, plain.bias, targets, way)
        return dict(zip(way.wants, found, strict=True))
    pieces = zip(states.split(way.chunk), targets.split(way.chunk), strict=True)
    parts: Any = [checkpoint(by_autograd, head, *piece, way, use_reentrant=False) for piece in pieces]
    return {name: torch.cat(values) for name, values in zip(way.wants, zip(*parts, strict=True), strict=True)}


def by_autograd(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, way: Way) -> tuple[Tensor, ...]:
    """The values of some tokens, of which autograd keeps everything."""
    logits = head(states).float() * way.after.scale
    if way.after.softcap:
        logits = way.after.softcap * torch.tanh(logits / way.after.softcap)
    logp = logits.log_softmax(-1)
    values = {
        "logp": lambda: logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1),
        "entropy": lambda: -(logp.exp() * logp).sum(-1),
        "uniform": lambda: logp.mean(-1),
        "normaliser": lambda: logits.logsumexp(-1),
    }
    return tuple(values[name]() for name in way.wants)


class LinearLoss(torch.autograd.Function):
    """The values of all tokens, and for each the gradient of each value by its state, made chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, bias, targets, way):
        by_state, by_weight, by_bias, *_ = ctx.needs_input_grad
        values = [torch.empty(len(states), dtype=exact(states).dtype, device=states.device) for _ in way.wants]
        slopes = [torch.empty_like(states) for _ in way.wants] if by_state else []
        alone = way.wants == ("logp",)  # of one value the weight's gradient can be made at once, for a slope of 1
        to_weight = torch.zeros_like(weight) if alone and by_weight else None
        to_bias = torch.zeros_like(bias) if alone and by_bias else None
        for here, logits in chunks(states, weight, bias, way.chunk):
            found = look(logits, targets[here], way, by_state or by_weight or by_bias)
            for n, (value, slope) in enumerate(found):
                values[n][here] = value
                if slope is None:
                    continue
                if by_state:
                    torch.mm(slope, weight, out=slopes[n][here])
                if to_weight is not None:
                    to_weight.addmm_(slope.T, states[here])
                if to_bias is not None:
                    to_bias += slope.sum(0)
        ctx.save_for_backward(states, weight, bias, targets, to_weight, to_bias, *slopes)
        ctx.way = way
        ctx.set_materialize_grads(False)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, bias, targets, to_weight, to_bias, *slopes = ctx.saved_tensors
        _, by_weight, by_bias, *_ = ctx.needs_input_grad
        parts = [
            slope * grad.unsqueeze(-1).to(slope.dtype)
            for grad, slope in zip(grads, slopes, strict=False)
            if grad is not None
        ]
        to_states = sum(parts[1:], parts[0]) if parts else None
        if not by_weight and not by_bias:
            return to_states, None, None, None, None
        if to_weight is not None and alike(grads[0]):  # as every plain loss has it
            to_weight = to_weight * grads[0][0]
            return to_states, to_weight, None if to_bias is None else to_bias * grads[0][0], None, None
        to_weight = torch.zeros_like(weight)
        to_bias = torch.zeros_like(bias) if by_bias else None
        for here, logits in chunks(states, weight, bias, ctx.way.chunk):
            found = zip(look(logits, targets[here], ctx.way, True), grads, strict=True)
            slope: Any = sum(one * grad[here, None] for (_, one), grad in found if one is not None and grad is not None)
            to_weight.addmm_(slope.T.to(states.dtype), states[here])
            if to_bias is not None:
                to_bias += slope.sum(0)
        return to_states, to_weight, to_bias, None, None


def alike(grad: Tensor | None) -> bool:
    """Whether every token counts the same."""
    return grad is not None and len(grad) > 0 and bool((grad == grad[0]).all())


def exact(values: Tensor) -> Tensor:
    return values.float() if values.element_size() < 4 else values


def chunks(states: Tensor, weight: Tensor, bias: Tensor | None, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Each chunk of tokens and what the head makes of it, [C, V]; one piece of memory serves them all."""
    if not len(states):
        return
    room = torch.empty(min(size, len(states)), len(weight), dtype=weight.dtype, device=weight.device)
    for start in range(0, len(states), size):
        piece = states[start : start + size].to(weight.dtype)
        made = torch.mm(piece, weight.T, out=room[: len(piece)])
        yield slice(start, start + len(piece)), made if bias is None else made.add_(bias)


def look(made: Tensor, targets: Tensor, way: Way, slopes: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each value [C] of a chunk, and its slope [C, V] by the head's output, which is overwritten."""
    logits, bend = way.after.apply_(exact(made))
    column = targets.unsqueeze(-1)
    at_target = logits.gather(-1, column)
    mean = logits.mean(-1) if "uniform" in way.wants else at_target
    logp = torch.log_softmax(logits, -1, out=logits)
    at_word = logp.gather(-1, column)
    normaliser = (at_target - at_word).squeeze(-1)
    surprise = -logp if "entropy" in way.wants else logp
    share = logp.exp_()
    for name in way.wants:
        value, slope = at_word.squeeze(-1), None
        if name == "logp" and slopes:
            slope = (share.neg_() if way.wants == ("logp",) else -share).scatter_add_(
                -1, column, torch.ones_like(at_word)
            )
        elif name == "entropy":
            value = (share * surprise).sum(-1)
            slope = share * (surprise - value.unsqueeze(-1))
        elif name == "uniform":
            value, slope = mean - normaliser, 1 / share.shape[-1] - share
        elif name == "normaliser":
            value, slope = normaliser, share.clone()
        yield value, way.after.slope_(slope, bend).to(made.dtype) if slopes and slope is not None else None
