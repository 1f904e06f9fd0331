"""What transformers has."""

from typing import Any, ClassVar

from .base import Attention, Place, attn, here, in_halves


@attn("auto")
class Auto(Attention):
    """The fastest that is installed for the device and the model: FlashAttention on a GPU, in 16 bits; else PyTorch's
    own where the model knows it."""

    def change(self, config):
        config._attn_implementation = best(here(), in_halves(config), knows_flash(config))


def best(place: Place, halves: bool, flash: bool) -> str | None:
    """The name of what is fastest on a machine, for a model that knows FlashAttention or not; None leaves it to
    transformers, which takes PyTorch's own where it can."""
    kinds = (Flash3(), Flash2()) if flash and place.gpu else ()
    return next((kind.name for kind in kinds if not kind.lacks(place, halves)), None)


def knows_flash(config: Any) -> bool:
    """Whether transformers' model of this config calls FlashAttention."""
    from transformers import MODEL_MAPPING

    kind = type(config)
    return bool(kind in MODEL_MAPPING and getattr(MODEL_MAPPING[kind], "_supports_flash_attn", False))


@attn("sdpa")
class Sdpa(Attention):
    """PyTorch's scaled_dot_product_attention."""


@attn("eager")
class Eager(Attention):
    """Product, softmax, product, as it is written in papers: slow, and the reference for others."""


@attn("flash_attention_2")
class Flash2(Attention):
    """FlashAttention-2 (Dao 2023, arXiv:2307.08691), in bf16 or fp16 on a GPU."""

    needs_gpu: ClassVar[bool] = True
    oldest: ClassVar[int] = 8
    halves: ClassVar[bool] = True
    package: ClassVar[str] = "flash_attn"
    command: ClassVar[str] = "pip install flash-attn --no-build-isolation"


@attn("flash_attention_3")
class Flash3(Attention):
    """FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608), in bf16 or fp16 on a Hopper GPU."""

    needs_gpu: ClassVar[bool] = True
    oldest: ClassVar[int] = 9
    newest: ClassVar[int] = 9
    halves: ClassVar[bool] = True
    package: ClassVar[str] = "flash_attn_interface"
    command: ClassVar[str] = "build it from the hopper folder of FlashAttention's source"


@attn("flex_attention")
class Flex(Attention):
    """PyTorch's FlexAttention; on a CPU it has no backward pass."""

    needs_gpu: ClassVar[bool] = True
