"""Optimizers of bitsandbytes whose states have 32 bits a number."""

from ._bits import AdEMAMixes, Bits, Lions, RMSprops
from .base import optimizer


@optimizer("paged_adamw_32bit")
class PagedAdamW(Bits):
    """AdamW, its states paged out of a GPU whose memory is short (QLoRA, arXiv:2305.14314)."""

    paged = True


@optimizer("lion_32bit")
class Lion(Lions):
    """Lion (Chen et al. 2023, arXiv:2302.06675): each weight moves by the sign of a mean of its gradients. Its learning
    rate should be three to ten times smaller than AdamW's."""


@optimizer("paged_lion_32bit")
class PagedLion(Lions):
    """lion_32bit, its states paged out of a GPU whose memory is short."""

    paged = True


@optimizer("ademamix")
class AdEMAMix(AdEMAMixes):
    """AdEMAMix (Pagliardini et al. 2024, arXiv:2409.03137): Adam with a second, slow mean of gradients."""


@optimizer("paged_ademamix_32bit")
class PagedAdEMAMix(AdEMAMixes):
    """ademamix, its states paged out of a GPU whose memory is short."""

    paged = True


@optimizer("rmsprop_bnb")
class RMSprop(RMSprops):
    """RMSprop as bitsandbytes has it."""


@optimizer("rmsprop_bnb_32bit")
class AlsoRMSprop(RMSprops):
    """Another name of rmsprop_bnb, as in transformers."""
