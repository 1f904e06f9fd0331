"""What transformers has."""

from typing import ClassVar

from .base import Attention, attn


@attn("auto")
class Auto(Attention):
    """What transformers takes of itself: PyTorch's own where the model knows it."""

    def change(self, config):
        pass


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
    package: ClassVar[str] = "flash_attn"
    command: ClassVar[str] = "pip install flash-attn --no-build-isolation"


@attn("flash_attention_3")
class Flash3(Attention):
    """FlashAttention-3 (Shah et al. 2024, arXiv:2407.08608), in bf16 or fp16 on a Hopper GPU."""

    needs_gpu: ClassVar[bool] = True
    package: ClassVar[str] = "flash_attn_interface"
    command: ClassVar[str] = "build it from the hopper folder of FlashAttention's source"


@attn("flex_attention")
class Flex(Attention):
    """PyTorch's FlexAttention; on a CPU it has no backward pass."""

    needs_gpu: ClassVar[bool] = True
