"""What the head says of target tokens, without ever holding the logits of more than a few of them.

Letters of shapes: M tokens, C of them at once, V words, H width of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakIdKeyDictionary

from .learning import place_for

if TYPE_CHECKING:
    from .divergence import Divergence

CHUNK_BYTES = 2**26
"""Size of the logits that are held at once."""
SPARE = WeakIdKeyDictionary()
"""By a head's weight on a CPU, what its gradient was made in, to be used again: pages that are had afresh take longer
to come by than to fill, which was a tenth of a step of full tuning."""


WATCHED = "surprise"
"""The entropy, looked at and not learnt from: it costs a pass over logits that are there, and no gradient."""


class After(NamedTuple):
    """What becomes of a head's output y on its way to logits: `softcap tanh(scale y / softcap) / temperature`."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def apply_(self, made: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the head's output, in its place; and how fast the cap lets them move, as [C, V]."""
        logits = made if self.straight == 1 else made.mul_(self.straight)
        if not self.softcap:
            return logits, None
        level = logits.div_(self.softcap).tanh_()
        bend = (1 - level.square()) / self.temperature
        return level.mul_(self.softcap / self.temperature), bend

    @property
    def straight(self) -> float:
        """What the head's output is multiplied by first."""
        return self.scale if self.softcap else self.scale / self.temperature

    def slope_(self, slope: Tensor, bend: Tensor | None) -> Tensor:
        """The slope by the head's output of what has this slope by the logits, in its place."""
        if bend is not None:
            slope.mul_(bend)
        return slope if self.straight == 1 else slope.mul_(self.straight)


class Way(NamedTuple):
    """How tokens are looked at: which values are wanted, of which logits, how many tokens at once, in what type."""

    wants: tuple[str, ...]
    after: After
    chunk: int
    dtype: torch.dtype
    learns: bool
    """Whether anybody may ask for gradients."""
    judge: Divergence | None = None
    """What is asked instead of the softmax alone; the targets are then the states of another model."""
    watches: bool = False
    """Whether `surprise` is wanted beside these."""

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.wants, WATCHED) if self.watches else self.wants


def linear_loss(
    states: Tensor,
    head: Callable[[Tensor], Tensor],
    targets: Tensor,
    wants: Sequence[str] = ("logp",),
    after: After | None = None,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Values of each token, [M] in float32 (float64 of a float64 head), by name.

    `logp` is the log-probability of the target, `entropy` that of the softmax, `uniform` the mean log-probability of
    all words, `normaliser` the logarithm of the sum of all exponentiated logits, `surprise` the entropy without a
    gradient; another name is a KeyError. `states`
    is [M, H], `targets` [M] int64 below V, else ValueError. The gradient of each value is made together with it,
    `chunk` tokens at a time; nothing of M times V is kept. A head that is more than an `nn.Linear` is computed twice
    instead.
    """
    words: int = getattr(head, "out_features", 2**17)
    size = chunk or max(1, CHUNK_BYTES // (4 * words))
    learnt = tuple(name for name in wants if name != WATCHED)
    dtype, learns = matmul_dtype(states, head), torch.is_grad_enabled()
    way = Way(learnt, after or After(), size, dtype, learns, watches=WATCHED in wants)
    return looked_at(states, head, targets, way)


def linear_divergence(
    states: Tensor, head: Callable[[Tensor], Tensor], theirs: Tensor, judge: Divergence, after: After | None = None
) -> Tensor:
    """[M] how far what the head says is from what another model's head says of its states, [M, any width].

    As in `linear_loss`, of both heads' logits only those of a few tokens are ever held.
    """
    size = max(1, CHUNK_BYTES // (4 * getattr(head, "out_features", 2**17)))
    learns = torch.is_grad_enabled()
    way = Way(("divergence",), after or After(), size, matmul_dtype(states, head), learns, judge)
    return looked_at(states, head, theirs, way)["divergence"]


def looked_at(states: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor, way: Way) -> dict[str, Tensor]:
    """The values of all tokens, by name."""
    if is_plain(head):
        if way.judge is None:
            check(targets, head.out_features)
        found: Any = LinearLoss.apply(states, head.weight, head.bias, targets, way)
        return dict(zip(way.names, found, strict=True))
    pieces = zip(states.split(way.chunk), targets.split(way.chunk), strict=True)
    parts: Any = [checkpoint(by_autograd, head, *piece, way, use_reentrant=False) for piece in pieces]
    return {name: torch.cat(values) for name, values in zip(way.names, zip(*parts, strict=True), strict=True)}


def is_plain(head: Any) -> TypeGuard[nn.Linear]:
    """Whether this computes `x W + b` and nothing else, as hooks or another `forward` would."""
    if type(head) is not nn.Linear:
        return False
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or "forward" in vars(head)
    return head.weight.is_floating_point() and not hooked


def matmul_dtype(states: Tensor, head: Any) -> torch.dtype:
    """What the head multiplies in: its own type, or that of autocast, which leaves float64 alone."""
    own = getattr(getattr(head, "weight", states), "dtype", states.dtype)
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and own != torch.float64 else own


def check(targets: Tensor, words: int) -> None:
    if not len(targets):
        return
    lowest, highest = torch.stack(targets.aminmax()).tolist()
    if lowest < 0 or highest >= words:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"the target {wrong} is not among the {words} words of the model's head")


def by_autograd(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, way: Way) -> tuple[Tensor, ...]:
    """The values of some tokens, of which autograd keeps everything."""
    logits = exact(head(states)) * way.after.scale
    if way.after.softcap:
        logits = way.after.softcap * torch.tanh(logits / way.after.softcap)
    logits = logits / way.after.temperature
    if way.judge:
        return (way.judge.of(logits, targets),)
    check(targets, logits.shape[-1])
    logp = logits.log_softmax(-1)
    values = {
        "logp": lambda: logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1),
        "entropy": lambda: -(logp.exp() * logp).sum(-1),
        WATCHED: lambda: -(logp.exp() * logp).sum(-1).detach(),
        "uniform": lambda: logp.mean(-1),
        "normaliser": lambda: logits.logsumexp(-1),
    }
    return tuple(values[name]() for name in way.names)


class LinearLoss(torch.autograd.Function):
    """The values of all tokens, and for each the gradient of each value by its state, made chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, bias, targets, way):
        by_state, by_weight, by_bias = (needed and way.learns for needed in ctx.needs_input_grad[:3])
        values = [states.new_empty(len(states), dtype=exactly(way.dtype)) for _ in way.names]
        slopes = [torch.empty_like(states) for _ in way.wants] if by_state else []
        alone = len(way.wants) == 1  # of one value the weight's gradient can be made at once, for a slope of 1
        to_weight = nothing_like(weight) if alone and by_weight else None
        to_bias = torch.zeros_like(bias, dtype=exactly(bias.dtype)) if alone and by_bias else None
        cast = weight.to(way.dtype)
        for here, piece, made, logits in chunks(states, cast, bias, way):
            found = look(logits, targets[here], way, by_state or by_weight or by_bias)
            for n, (value, fall) in enumerate(found):
                values[n][here] = value
                if fall is None:
                    continue
                lower = fall if fall.dtype == made.dtype else made.copy_(fall)
                if by_state:
                    slopes[n][here] = times(lower, cast).neg_()
                descend(to_weight, to_bias, fall, lower, piece)
        kept = [None if made is None else made.to(weight.dtype) for made in (to_weight, to_bias)]
        ctx.save_for_backward(states, weight, bias, targets, *kept, *slopes)
        ctx.way = way
        if way.watches:
            ctx.mark_non_differentiable(values[-1])
        ctx.set_materialize_grads(False)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, bias, targets, to_weight, to_bias, *slopes = ctx.saved_tensors
        _, by_weight, by_bias, *_ = ctx.needs_input_grad
        used = [(grad, slope) for grad, slope in zip(grads, slopes, strict=False) if grad is not None]
        total: Any = sum(slope * grad.unsqueeze(-1) for grad, slope in used)  # in float32, whatever the states are
        to_states = total.to(states.dtype) if used else None
        if not by_weight and not by_bias or all(grad is None for grad in grads):
            return to_states, None, None, None, None
        if len(ctx.way.wants) == 1 and alike(grads[0]):  # as every plain loss has it
            if to_weight is not None and (there := place_for(weight)) is not None:
                there.add_(to_weight, alpha=float(grads[0][0]))
                spare(weight, to_weight)
                to_weight = None
            scaled = [None if made is None else made * grads[0][0] for made in (to_weight, to_bias)]
            return to_states, *scaled, None, None
        there = place_for(weight) if by_weight else None
        straight = there is not None and there.dtype == exactly(weight.dtype)  # else sums would lose too much
        if straight and to_weight is not None:
            spare(weight, to_weight)
        to_weight = (there if straight else nothing_like(weight)) if by_weight else None
        to_bias = torch.zeros_like(bias, dtype=exactly(bias.dtype)) if by_bias else None
        for here, piece, made, logits in chunks(states, weight.to(ctx.way.dtype), bias, ctx.way):
            found = zip(look(logits, targets[here], ctx.way, True), grads, strict=True)
            fall: Any = sum(one * grad[here, None] for (_, one), grad in found if one is not None and grad is not None)
            descend(to_weight, to_bias, fall, fall.to(made.dtype), piece)
        down = [None if made is None else made.to(like.dtype) for made, like in ((to_weight, weight), (to_bias, bias))]
        return to_states, None if straight else down[0], down[1], None, None


def nothing_like(weight: Tensor) -> Tensor:
    """[V, H] zeros in which a weight's gradient is made."""
    kept: Tensor | None = SPARE.pop(weight, None)  # pyright: ignore[reportAssignmentType]
    return torch.zeros_like(weight, dtype=exactly(weight.dtype)) if kept is None else kept.zero_()


def spare(weight: Tensor, made: Tensor) -> None:
    """Keep what a gradient was made in, unless it has been copied to fewer bits since."""
    if weight.device.type == "cpu" and made.dtype == exactly(made.dtype):
        SPARE[weight] = made


FEW = 16


def times(rows: Tensor, weight: Tensor) -> Tensor:
    """[C, V] @ [V, H], of few rows too by the way that is made for many: the other sums ten times less exactly."""
    if len(rows) >= FEW:
        return torch.mm(rows, weight)
    return torch.mm(torch.cat([rows, rows.new_zeros(FEW - len(rows), rows.shape[1])]), weight)[: len(rows)]


def descend(to_weight: Tensor | None, to_bias: Tensor | None, fall: Tensor, lower: Tensor, piece: Tensor) -> None:
    """Takes a chunk's part off the gradients; `lower` is `fall`, [C, V], in the type of its states, [C, H]."""
    if to_weight is not None and to_weight.dtype == piece.dtype:
        to_weight.addmm_(lower.T, piece, alpha=-1)
    elif to_weight is not None:
        to_weight -= lower.T @ piece  # sums of many chunks would lose too much in half precision
    if to_bias is not None:
        to_bias -= fall.sum(0)


def alike(grad: Tensor | None) -> bool:
    """Whether every token counts the same."""
    return grad is not None and len(grad) > 0 and bool((grad == grad[0]).all())


def exactly(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def exact(values: Tensor) -> Tensor:
    return values.to(exactly(values.dtype))


def chunks(
    states: Tensor, weight: Tensor, bias: Tensor | None, way: Way
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Each chunk of tokens: where, states [C, H] and what the head makes of them [C, V], as multiplied and exact.

    The same memory serves all chunks; in full precision the last two are one.
    """
    if not len(states):
        return
    room = torch.empty(min(way.chunk, len(states)), len(weight), dtype=way.dtype, device=weight.device)
    wide = room if exactly(way.dtype) == way.dtype else torch.empty_like(room, dtype=exactly(way.dtype))
    for start in range(0, len(states), way.chunk):
        piece = states[start : start + way.chunk].to(way.dtype)
        made = torch.mm(piece, weight.T, out=room[: len(piece)])
        logits = made if wide is room else wide[: len(piece)].copy_(made)
        yield slice(start, start + len(piece)), piece, made, logits if bias is None else logits.add_(bias)


def look(made: Tensor, targets: Tensor, way: Way, slopes: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each value [C] of a chunk, and how fast it falls with the head's output, [C, V], which is overwritten.

    It falls by the softmax where it rises by the target alone, so that the largest part stands there without a pass.
    """
    logits, bend = way.after.apply_(made)
    if way.judge:
        value, fall = way.judge.look(logits, targets, slopes)
        yield value, None if fall is None else way.after.slope_(fall, bend)
        return
    column = targets.unsqueeze(-1)
    at_target = logits.gather(-1, column).squeeze(-1)
    mean = logits.mean(-1) if "uniform" in way.wants else at_target
    kept = logits.clone() if "entropy" in way.wants else logits
    peak = logits.amax(-1)
    share = torch.softmax(logits, -1, out=None if way.watches else logits)
    excess = -share.amax(-1).log()  # of the normaliser over the peak, whose own share is one in the sum
    watched = [(peak + excess - torch.einsum("cv,cv->c", share, logits), None)] if way.watches else []
    for name in way.wants:
        fall = None
        if name == "logp":
            value = (at_target - peak) - excess
            if slopes:
                fall = share if way.wants == ("logp",) else share.clone()
                fall.scatter_add_(-1, column, torch.full_like(value, -1).unsqueeze(-1))
        elif name == "entropy":
            doubt = (peak + excess).unsqueeze(-1) - kept
            value = (share * doubt).sum(-1)
            fall = share * (value.unsqueeze(-1) - doubt) if slopes else None
        elif name == "uniform":
            value, fall = (mean - peak) - excess, share - 1 / share.shape[-1] if slopes else None
        elif name == "normaliser":
            value, fall = peak + excess, -share if slopes else None
        else:
            raise KeyError(name)
        yield value, None if fall is None else way.after.slope_(fall, bend)
    yield from watched
