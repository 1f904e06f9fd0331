"""Whether two ways of computing something come to the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def same(got: Tensor, expected: Tensor, computed: torch.dtype | None = None) -> bool:
    """Whether two results differ by rounding alone; `computed` is the kind of number in which, if not their own. In 16
    bits one number may be far off."""
    if got.shape != expected.shape:
        return False
    apart = (expected - got).float()
    if (computed or expected.dtype).itemsize >= 4:
        return bool(apart.abs().max() <= 1e-4 * expected.abs().max())
    return bool(apart.norm() <= 2e-2 * expected.float().norm())
