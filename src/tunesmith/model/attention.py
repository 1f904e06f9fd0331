"""Attention within each sequence of a packed row: one call a sequence of what the model would have used anyway.

A packed row says where the mask would stand, `[1, 1, 2, N]` of int64, how many tokens each of its sequences borrows
from the one that it branches off from, and how many it has of its own: transformers hands a mask of four dimensions to
the attention as it is, in a recomputation for gradient checkpointing too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import RecipeError
from .memory import Unsuited
from .shifted import group_size, shifted

OURS = {"sdpa": "tunesmith_sdpa", "eager": "tunesmith_eager"}
NEAR = ("cpu", "meta")
"""Where a call costs next to nothing; on meta a plan counts what a processor takes."""
AT_ONCE = 2048
"""Tokens in a row on a GPU up to which one call for all of it, most of which is masked, costs less than many calls."""


def keep_apart(model) -> bool:
    """Give a transformers model attention that reads lengths; any other mask means what it did before.

    False where its attention asks nobody, looks at chunks of a row, or is of a kind that tells sequences apart by
    their positions itself, as FlashAttention does.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from .load import quiet

    config = model.config
    usual = getattr(config, "_attn_implementation", None)
    if usual in OURS.values():
        return True
    if usual not in OURS or getattr(config.get_text_config(), "attention_chunk_size", None):
        refuse_shifted(model)
        return False
    name = OURS[usual]
    ALL_ATTENTION_FUNCTIONS.register(name, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[usual])
    with quiet():
        model.set_attn_implementation(name)
    if config._attn_implementation != name:
        refuse_shifted(model)
        return False
    return True


def refuse_shifted(model) -> None:
    """Refuse groups of tokens where they would be passed over: the model's attention is its own."""
    if group_size(model.config.get_text_config()):
        raise RecipeError(f"model.attn: {type(model).__name__} asks nobody for its attention; take auto, not shifted")


def as_before(model) -> None:
    """Give a model back the attention that it came with."""
    refuse_shifted(model)
    for usual, name in OURS.items():
        if model.config._attn_implementation == name:
            model.set_attn_implementation(usual)


class Family(NamedTuple):
    """Sequences that begin alike: where the first of them stands in a row, and the others after it."""

    front: slice
    """What they have in common, the first one's first tokens."""
    rest: slice
    """What the others have of their own."""


class Row(NamedTuple):
    """How sequences lie in a packed row, and how they look at themselves."""

    borrowed: list[int]
    """Of each, how many of its first tokens stand only in the nearest before it that borrows none."""
    lengths: list[int]
    """Tokens that each has of its own."""
    causal: bool
    scale: float | None

    def split(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """[R, heads, T, ...] each -> those of every sequence."""
        return zip(*(tensor.split(self.lengths, 2) for tensor in tensors), strict=True)

    def fronts(self) -> Iterator[slice]:
        """Of every sequence, where what it borrows stands."""
        start = leader = 0
        for borrowed, length in zip(self.borrowed, self.lengths, strict=True):
            leader = leader if borrowed else start
            yield slice(leader, leader + borrowed)
            start += length

    def families(self) -> list[Family]:
        """Those that have more than one member."""
        found: list[Family] = []
        start = 0
        for front, length in zip(self.fronts(), self.lengths, strict=True):
            here = slice(start, start + length)
            if front.start < front.stop:
                more = found and found[-1].front == front and found[-1].rest.stop == start
                if more:
                    here = slice(found.pop().rest.start, here.stop)
                found.append(Family(front, here))
            start += length
        return found


def row(module, mask: Tensor, options: dict[str, Any]) -> Row:
    """What stands where a mask would."""
    borrowed, lengths = mask[0, 0].tolist()
    return Row(borrowed, lengths, forward_only(module, options), options.get("scaling"))


def forward_only(module, options: dict[str, Any]) -> bool:
    """Whether tokens look at none that come after them."""
    causal = options.get("is_causal")
    return getattr(module, "is_causal", True) if causal is None else causal


@torch.compiler.disable  # the lengths are numbers, another row another program
def attend(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options):
    """[R, heads, T, D] each -> [R, T, heads, D], and weights if the usual attention gives any."""
    prefix, memory = options.pop("prefix", None), options.pop("memory", None)
    front = prefix[module.layer_idx] if prefix else None
    if memory is None:
        return attend_rows(module, (query, key, value), mask, front, options)
    if beyond(options):
        raise Unsuited(f"attention of {type(module).__name__} is asked for more than queries, keys and values")
    return memory.attend(module.layer_idx, query, (key, value), options.get("scaling"), front), None


def attend_rows(module, looks: tuple[Tensor, ...], mask: Tensor | None, front, options: dict[str, Any]):
    """Of queries, keys and values; those of a prefix, if there is one, in front."""
    (query, key, value), usual = looks, usual_attention(module)
    if front is not None and usual is shifted:
        raise RecipeError("model.attn: shifted lets no token see a prefix that is not of its group; take lora")
    if mask is None or mask.dtype != torch.int64 or mask.ndim != 4:
        if front is not None:
            mask = behind(module, query, key, mask, front[0].shape[2], options)
            key, value = behind_front(front, key, value)
        return usual(module, query, key, value, mask, **options)
    if far_and_short(query, front, usual, options):
        return at_once(module, looks, mask, front, options)
    laid = row(module, mask, options)
    if front is None and quick(module, query, value, options):
        whole: Any = Apart.apply(query, key, value, laid)
        return whole, None
    return one_by_one(module, looks, laid, front, options), None


def far_and_short(query: Tensor, front, usual, options: dict[str, Any]) -> bool:
    """Whether a row is looked at in one call: not by groups, which begin with each sequence, nor through a window that
    reaches into a prefix."""
    plain = usual is not shifted and (front is None or not options.get("sliding_window"))
    return plain and query.device.type not in NEAR and query.shape[2] <= AT_ONCE


def one_by_one(module, looks: tuple[Tensor, ...], laid: Row, front, options: dict[str, Any]) -> Tensor:
    """A call for each sequence of a packed row."""
    (query, key, value), usual, done = looks, usual_attention(module), []
    for at, (q, k, v) in zip(laid.fronts(), laid.split(query, key, value), strict=True):
        if at.start < at.stop:
            k, v = (torch.cat([whole[:, :, at], own], 2) for whole, own in ((key, k), (value, v)))
        if front is not None:
            k, v = behind_front(front, k, v)
        own = own_mask(module, q, k.shape[2], laid.causal, options.get("sliding_window"))
        done.append(usual(module, q, k, v, own, **options)[0])
    return torch.cat(done, 1)


def at_once(module, looks: tuple[Tensor, ...], mask: Tensor, front, options: dict[str, Any]):
    """All sequences of a packed row in one call, by a mask that is made once for all layers that want the same."""
    query, key, value = looks
    window, eager = options.get("sliding_window"), module.config._attn_implementation == OURS["eager"]
    told = forward_only(module, options), window, query.dtype if eager else None, front is None
    known: dict[Any, Tensor] = MASKS.setdefault(mask, {})  # pyright: ignore[reportAssignmentType]
    if told not in known:
        may = visible(mask, query.shape[2], *told[:2])
        if front is not None:
            may = torch.cat([may.new_ones(len(may), front[0].shape[2]), may], 1)
        known[told] = additive(may, query.dtype) if eager else may[None, None]
    if front is not None:
        key, value = behind_front(front, key, value)
    return usual_attention(module)(module, query, key, value, known[told], **options | {"is_causal": False})


MASKS = WeakIdKeyDictionary()
"""By the tensor that says how sequences lie in a row, masks that mean the same."""


def visible(mask: Tensor, length: int, causal: bool, window: int | None) -> Tensor:
    """[T, T] which tokens of a packed row each may look at; the device is asked for no number, to wait for."""
    borrowed, lengths = mask[0, 0]
    order, at = torch.arange(len(lengths), device=mask.device), torch.arange(length, device=mask.device)
    leader = torch.where(borrowed == 0, order, 0).cummax(0).values
    own = torch.repeat_interleave(order, lengths, output_size=length)  # [T] whose each token is
    index = at - (lengths.cumsum(0) - lengths)[own]
    place = index + borrowed[own]
    lent = (own == leader[own][:, None]) & (index < borrowed[own][:, None])
    may, back = (own == own[:, None]) | lent, place[:, None] - place
    if causal:
        may &= back >= 0
    return may & (back.abs() < window) if window else may


def behind_front(front: tuple[Tensor, Tensor], *own: Tensor) -> Iterator[Tensor]:
    """Keys and values [R, heads, T, D] behind those of a prefix [1, heads, N, D], which all rows have."""
    for before, one in zip(front, own, strict=True):
        yield torch.cat([before.to(one).expand(len(one), -1, -1, -1), one], 2)


def behind(module, query: Tensor, key: Tensor, mask: Tensor | None, count: int, options: dict[str, Any]):
    """A mask that lets everybody see a prefix of so many, too; where there was none, one that says what it meant."""
    seen, window = key.shape[2], options.get("sliding_window")
    if mask is None:
        causal = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        return own_mask(module, query, seen + count, causal, window)
    may = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
    before = may(*mask.shape[:3], count)
    if window:  # a prefix is the oldest of what is seen
        at = torch.arange(seen - mask.shape[2], seen, device=mask.device)[:, None] + count
        far = at - torch.arange(count, device=mask.device) >= window
        before = before.masked_fill(far, False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min)
    return torch.cat([before, mask], -1)


def quick(module, query: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether the usual attention would be torch's own for a CPU, with nothing added, dropped or out of reach."""
    return (
        module.config._attn_implementation == OURS["sdpa"]
        and usual_attention(module) is not shifted
        and query.device.type in NEAR
        and query.shape[-1] == value.shape[-1]
        and query.dtype == value.dtype  # with train.bf16 they may differ, until torch's own attention makes them alike
        and not beyond(options)
    )


def beyond(options: dict[str, Any]) -> bool:
    """Whether attention is asked for more than a softmax over scaled products."""
    others = ("dropout", "sliding_window", "position_bias", "softcap", "cache")
    return any(options.get(name) is not None and options.get(name) for name in others)


FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
# what scaled_dot_product_attention comes to on a CPU; called here for the normalisers, by which parts are put together


class Apart(torch.autograd.Function):
    """Attention of each sequence to itself and to what it borrows; one part a sequence, and one a family.

    With s(P) the softmax's denominator over a part P, the whole is the sum of parts, each weighed by s(P) / s(all); and
    the slope through a part is what the kernel makes of the whole's output and normaliser.
    """

    @staticmethod
    def forward(ctx, query, key, value, laid):
        parts = [FORWARD(*own, 0.0, laid.causal, scale=laid.scale) for own in laid.split(query, key, value)]
        out, sums = (torch.cat(tensors, 2) for tensors in zip(*parts, strict=True))
        for front, rest in laid.families():
            reached = query[:, :, rest], key[:, :, front], value[:, :, front]
            before, its = FORWARD(*reached, 0.0, False, scale=laid.scale)
            own, both = sums[:, :, rest], torch.logaddexp(sums[:, :, rest], its)
            out[:, :, rest] *= (own - both).exp_().unsqueeze(-1)
            out[:, :, rest] += before.mul_((its - both).exp_().unsqueeze(-1))
            sums[:, :, rest] = both
        out = out.transpose(1, 2).contiguous()
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.laid = laid
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out, sums = ctx.saved_tensors
        laid: Row = ctx.laid
        slope, out = grads[0].transpose(1, 2), out.transpose(1, 2)
        pieces = laid.split(slope, query, key, value, out, sums)
        parts = [BACKWARD(*own, 0.0, laid.causal, scale=laid.scale) for own in pieces]
        to_query, to_key, to_value = (torch.cat(tensors, 2) for tensors in zip(*parts, strict=True))
        for front, rest in laid.families():
            theirs = slope[:, :, rest], query[:, :, rest], key[:, :, front], value[:, :, front]
            more = BACKWARD(*theirs, out[:, :, rest], sums[:, :, rest], 0.0, False, scale=laid.scale)
            to_query[:, :, rest] += more[0]
            to_key[:, :, front] += more[1]
            to_value[:, :, front] += more[2]
        return to_query, to_key, to_value, None


def usual_attention(module) -> Callable:
    """What the model's attention calls if nobody says otherwise."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if module.training and group_size(module.config):
        return shifted
    if module.config._attn_implementation == OURS["sdpa"]:
        return ALL_ATTENTION_FUNCTIONS["sdpa"]
    return sys.modules[type(module).__module__].eager_attention_forward


def own_mask(module, query: Tensor, seen: int, causal: bool, window: int | None) -> Tensor | None:
    """[1, 1, t, s] what the last t of s tokens may look at; None where the usual attention knows without."""
    length = query.shape[2]
    eager = module.config._attn_implementation == OURS["eager"]
    if not (causal and eager) and (not window or seen <= window) and length == seen:
        return None
    at = torch.arange(seen, device=query.device)
    back = at[seen - length :, None] - at
    may = (back >= 0) if causal else torch.ones_like(back, dtype=torch.bool)
    if window:
        may &= back.abs() < window
    return additive(may, query.dtype) if eager else may[None, None]


def additive(may: Tensor, dtype: torch.dtype) -> Tensor:
    """[t, s] -> [1, 1, t, s] what is added to scores, in place of what may be looked at."""
    return torch.zeros_like(may, dtype=dtype).masked_fill(~may, torch.finfo(dtype).min)[None, None]
