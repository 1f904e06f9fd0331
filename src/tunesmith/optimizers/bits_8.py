"""Optimizers of bitsandbytes whose states have 8 bits a number."""

from ._bits import AdEMAMixes, Eight, Lions, RMSprops
from .base import optimizer


@optimizer("adamw_bnb_8bit")
class AdamW8bit(Eight):
    """AdamW whose two means are kept in 8 bits a number, in blocks (Dettmers et al. 2021, arXiv:2110.02861)."""


@optimizer("adamw_8bit")
class AlsoAdamW8bit(Eight):
    """Another name of adamw_bnb_8bit, as in transformers."""


@optimizer("paged_adamw_8bit")
class PagedAdamW8bit(Eight):
    """adamw_bnb_8bit, its states paged out of a GPU whose memory is short (QLoRA, arXiv:2305.14314)."""

    paged = True


@optimizer("lion_8bit")
class Lion8bit(Eight, Lions):
    """Lion (Chen et al. 2023, arXiv:2302.06675), the sign of a mean of gradients, with the mean in 8 bits. Its learning
    rate should be three to ten times smaller than AdamW's."""


@optimizer("paged_lion_8bit")
class PagedLion8bit(Eight, Lions):
    """lion_8bit, its states paged out of a GPU whose memory is short."""

    paged = True


@optimizer("ademamix_8bit")
class AdEMAMix8bit(Eight, AdEMAMixes):
    """AdEMAMix (Pagliardini et al. 2024, arXiv:2409.03137), Adam with a second, slow mean of gradients, in 8 bits."""


@optimizer("paged_ademamix_8bit")
class PagedAdEMAMix8bit(Eight, AdEMAMixes):
    """ademamix_8bit, its states paged out of a GPU whose memory is short."""

    paged = True


@optimizer("rmsprop_bnb_8bit")
class RMSprop8bit(Eight, RMSprops):
    """RMSprop whose mean of squares is kept in 8 bits."""
