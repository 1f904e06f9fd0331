"""A step of training on a model without weights: what it keeps, how much it computes, how many numbers it moves.

Nothing is computed: torch goes through the same operations with shapes alone (its device `meta`), whatever the model,
the method and the layout, and each operation is counted as it passes. Letters of shapes: M tokens that are learnt,
H width of the model, V words.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..data.batch import pack
from ..data.rendering.tokens import Tokens
from ..model.learning import adding_up
from ..model.linear_loss import CHUNK_BYTES

if TYPE_CHECKING:
    from ..model.policy import Policy
    from .work import Part

META = torch.device("meta")
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
ATTENTION_BACK = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
ATTENDING = 0
"""Stands for a side where attention is counted, whose products are quicker or slower than others."""
KEYS = 512
"""Keys that attention takes at once: a block of them is left out where nothing may look at it."""
IN_PLACE: dict[Any, Any] = {
    torch.ops.aten.addmm_: torch.ops.aten.addmm,
    torch.ops.aten.baddbmm_: torch.ops.aten.baddbmm,
}
"""What adds to what is there already, which torch's own count knows nothing of: the gradient of every weight."""


@dataclass
class Count:
    """What a piece of work comes to."""

    flops: Counter[int] = field(default_factory=Counter)
    """Additions and multiplications within products, by the smallest side of these, or ATTENDING."""
    weights: float = 0.0
    """Bytes of the model's weights that products read."""
    read: float = 0.0
    """Bytes that products read and write beside."""
    moved: float = 0.0
    """Bytes that everything else reads and writes."""
    calls: int = 0
    """Operations."""
    kept: int = 0
    """Bytes that wait for the backward pass."""
    peak: int = 0
    """The most bytes there were at once, beside those that were there before."""

    @property
    def all_flops(self) -> float:
        return float(sum(self.flops.values()))


class Flash(TorchFunctionMode):
    """Within it, attention is torch's own for a CPU, which keeps no square of tokens, as that of a GPU does not. On no
    device torch goes the long way, and keeps it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or kwargs.get("dropout_p"):
            return func(*args, **kwargs)
        query, key, value, *rest = args
        if rest or query.shape[-1] != value.shape[-1]:
            return func(*args, **kwargs)
        said = {"attn_mask": kwargs.get("attn_mask"), "scale": kwargs.get("scale")}
        return ATTENTION(query, key, value, 0.0, kwargs.get("is_causal", False), **said)[0]


class Counting(TorchDispatchMode):
    """Within it, operations are counted, and the memory of what they make while it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.live = Count(), 0
        self.known: set[int] = set()
        self.weights: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.add(func, args, kwargs or {}, out)
        return out

    def add(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        made = [one for one in tree_leaves(out) if isinstance(one, Tensor) and one.is_meta]
        for one in made:
            self.hold(one.untyped_storage())
        if not made:
            return
        self.count.calls += 1
        flops, side = products(func, args, kwargs, out)
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        through = sum(map(spread, [*given, *made]))
        if flops:
            weights = sum(spread(one) for one in given if one.untyped_storage()._cdata in self.weights)
            self.count.flops[side] += flops
            self.count.weights += weights
            self.count.read += through - weights
        else:
            self.count.moved += through

    def know(self, weights: Iterable[Tensor], others: Iterable[Any]) -> None:
        """Do not count what is there already."""
        self.weights = {one.untyped_storage()._cdata for one in weights}
        self.known |= self.weights | {one.untyped_storage()._cdata for one in others}

    def hold(self, storage: Any) -> None:
        at, size = storage._cdata, storage.nbytes()
        if at in self.known:
            return
        self.known.add(at)
        self.live += size
        self.count.peak = max(self.count.peak, self.live)
        weakref.finalize(storage, self.drop, at, size).atexit = False

    def drop(self, at: int, size: int) -> None:
        self.known.discard(at)
        self.live -= size


def spread(tensor: Tensor) -> int:
    """Bytes that are read of a tensor: of one that is repeated, those that are there."""
    there = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 1)
    return there * tensor.element_size()


def products(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[int, int]:
    """The flops of an operation, and the smallest side of the matrices that it multiplies; none of others."""
    if func in (ATTENTION, ATTENTION_BACK):
        query, key = (args[1], args[2]) if func is ATTENTION_BACK else (args[0], args[1])
        causal = args[-1] if isinstance(args[-1], bool) else False
        whole = 4 * query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] * query.shape[3]
        blocks = -(-key.shape[2] // KEYS)
        pairs = whole * (blocks + 1) // (2 * blocks) if causal else whole
        return (pairs * 5 // 2 if func is ATTENTION_BACK else pairs), ATTENDING
    counted = flop_registry.get(IN_PLACE.get(func.overloadpacket, func.overloadpacket))
    if counted is None:
        return 0, 0
    sides = [size for one in args if isinstance(one, Tensor) and one.ndim >= 2 for size in one.shape[-2:]]
    return int(counted(*args, **kwargs, out_val=out)), min(sides, default=1)


class Told(NamedTuple):
    """What is asked of a head beside how likely tokens are."""

    watches: bool = False
    """Their entropy, looked at."""
    weighs: bool = False
    """Whether answers count each by itself: the gradient of a head that learns is then made in the backward pass, of
    logits that are made anew."""


NO_MORE = Told()


class Head(torch.autograd.Function):
    """What model/linear_loss.py does with a head: logits of some tokens at a time, and at once the slopes of all."""

    @staticmethod
    def forward(ctx, states, weight, learns, told):
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if learns and ctx.needs_input_grad[1] else None
        slopes = torch.empty_like(states) if learns else None
        for here, piece, falls in looked(states, weight, told.watches):
            if slopes is not None:
                slopes[here] = torch.mm(falls.to(weight.dtype), weight)
            if to_weight is not None:
                to_weight.addmm_(falls.T, piece.float())
        ctx.save_for_backward(states, weight, slopes, to_weight)
        ctx.weighs = told.weighs
        return states.new_empty(len(states), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight, slopes, to_weight = ctx.saved_tensors
        if ctx.weighs and to_weight is not None:
            for _, piece, falls in looked(states, weight, False):
                to_weight.addmm_(falls.T, piece.float())
        return slopes * grads[0].unsqueeze(-1).to(slopes.dtype), to_weight, None, None


def looked(states: Tensor, weight: Tensor, watches: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some tokens at a time: where, their states, and how fast what is said of them falls with their logits."""
    rows = min(max(1, CHUNK_BYTES // (4 * len(weight))), len(states))
    room = torch.empty(rows, len(weight), dtype=weight.dtype, device=META)
    wide = room if room.element_size() >= 4 else torch.empty_like(room, dtype=torch.float32)
    for start in range(0, len(states), rows):
        piece = states[start : start + rows]
        made, logits = room[: len(piece)], wide[: len(piece)]
        torch.mm(piece, weight.T, out=made)
        logits.amax(-1)
        falls = torch.softmax(logits, -1, out=None if watches else logits)
        falls.amax(-1)
        if watches:
            torch.einsum("cv,cv->c", falls, logits)
        yield slice(start, start + len(piece)), piece, falls


@dataclass
class Rehearsed:
    """What one part of a step comes to: its forward and its backward pass."""

    step: Count
    forward: Count
    """The forward pass alone."""
    head: int
    """Bytes of logits, and of what is made of them."""

    def plus(self, other: Rehearsed, times: float) -> Rehearsed:
        """This, and so many times as much more as the other has than this."""
        return Rehearsed(further(self.step, other.step, times), further(self.forward, other.forward, times), self.head)


def further(one: Count, two: Count, times: float) -> Count:
    """Along the line from one count to the other, and so many times as far again."""

    def on(a: float, b: float) -> float:
        return a + (b - a) * times

    sides = one.flops.keys() | two.flops.keys()
    flops = Counter({side: round(on(one.flops[side], two.flops[side])) for side in sides})
    calls, kept, peak = (round(on(getattr(one, key), getattr(two, key))) for key in ("calls", "kept", "peak"))
    weights, read, moved = (on(getattr(one, key), getattr(two, key)) for key in ("weights", "read", "moved"))
    return Count(flops, weights, read, moved, calls, kept, peak)


def rehearse(policy: Policy, part: Part, learnt: int, told: Told = NO_MORE) -> Rehearsed:
    """A forward and a backward pass over some sequences, of which so many tokens are learnt.

    The policy's model has no weights. Padded rows are told by their lengths, which are then all the same.
    """
    borrowed = part.borrowed or (0,) * len(part.own)
    sizes = [own + before for own, before in zip(part.own, borrowed, strict=True)]
    batch = pack([Tokens([0] * size, [True] * size) for size in sizes], part.borrowed)
    begun = policy.begun(batch).batch
    begun = replace(begun, ids=begun.ids.to(META), place=begun.place.to(META))
    weights = [weight for weight in policy.model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    counting = Counting()
    counting.know(policy.model.parameters(), [*policy.model.buffers(), *(weight.grad for weight in weights)])
    with counting, Flash(), adding_up():
        states = policy.run(begun, policy.trunk).last_hidden_state[0]
        loss, head = judged(policy, states, (learnt, told), counting)
        forward = replace(counting.count, flops=Counter(counting.count.flops), kept=counting.live)
        counting.count.kept = counting.live
        there_and_back(loss)
    for weight in weights:
        weight.grad = None
    return Rehearsed(counting.count, forward, head)


def there_and_back(loss: Tensor) -> None:
    """The backward pass of what was gone through, if anything learns. No step is taken."""
    if loss.requires_grad:
        loss.backward()


def judged(policy: Policy, states: Tensor, asked: tuple[int, Told], counting: Counting) -> tuple[Tensor, int]:
    """The loss of so many of the states, and the bytes that it took."""
    learnt, told = asked
    before = counting.live
    counting.count.peak, was = counting.live, counting.count.peak
    chosen = states.index_select(0, torch.empty(max(1, learnt), dtype=torch.long, device=META))
    head = getattr(policy.bare, "score", None) or (policy.head if callable(policy.head) else None)
    weight = getattr(head, "weight", None)
    if weight is None or weight.shape[-1] != chosen.shape[-1]:
        loss = chosen.sum()
    else:
        made: Any = Head.apply(chosen, weight, torch.is_grad_enabled(), told)
        loss = made.sum()
    taken = counting.count.peak - before
    counting.count.peak = max(was, counting.count.peak)
    return loss, taken
