"""Weights in 4 or 8 bits by bitsandbytes, on a CPU too."""

import warnings
from functools import cache
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from ..config.record import record
from ..errors import BadEnvironment
from .base import Quantised, precision

FourBits = Literal["nf4", "fp4"]


@record
class Four(Quantised):
    package: ClassVar[str] = "bitsandbytes"

    double_quant: bool = True
    """Quantise the scales of the blocks too: 0.4 bits a weight less."""

    def kind(self) -> FourBits:
        raise NotImplementedError

    def room(self, count, row):
        scales = count / 64  # one for each 64 numbers, of 8 bits if they are quantised too, 256 at a time
        return count / 2, scales * (1 + 4 / 256) if self.double_quant else scales * 4

    def quantise(self, model, skip):
        keep_as_read(model)

    def config(self, skip: list[str]) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.kind(),
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.dtype(),
            llm_int8_skip_modules=skip,
        )


def keep_as_read(model) -> None:
    """Have 4-bit layers say the same on every processor: bitsandbytes 0.50 has two ways of its own with AVX-512.

    Where there is BF16 as well, a layer that is asked writes its weights anew, in another order and with scales of 16
    bits: it fails on small layers, and says something else than was trained over.
    """
    fours = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for module in fours:
        module.support_avx512bf16_for_cpu = False
    if fours:
        read_across_rows()


@cache
def read_across_rows() -> Any:
    """With AVX-512 each row is read as if it began a block of 64 numbers, as it is not written if its length is no
    multiple of that. Such weights are read as one long row. What is returned keeps this so."""
    from torch import cuda, library
    from torch.backends.cpu import get_cpu_capability

    if get_cpu_capability() != "AVX512":
        return None
    if not hasattr(library, "get_kernel"):
        if cuda.is_available():  # which reads them by itself
            return None
        raise BadEnvironment(
            "model.precision: on a processor with AVX-512 bitsandbytes reads 4 bits wrongly, and that is mended with"
            " torch 2.9 or later: run `pip install -U torch`, or take hqq"
        )
    usual = library.get_kernel("bitsandbytes::dequantize_4bit", "CPU")

    def read(keys, packed, scales, *how):
        block, kind, shape, dtype = how
        row = shape if shape[-1] % block == 0 else (1, prod(shape))
        return usual.call_boxed(keys, packed, scales, block, kind, row, dtype).reshape(shape)

    mended = library.Library("bitsandbytes", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)  # of what is done here
        mended.impl("dequantize_4bit", read, "CPU", with_keyset=True)
    return mended


@precision("bnb_4bit")
class Bnb4Bit(Four):
    """4 bits by bitsandbytes, of the kind that bnb_4bit_quant_type says (Dettmers et al. 2023, arXiv:2305.14314)."""

    bnb_4bit_quant_type: FourBits = "nf4"
    """nf4 has its values where those of a normal distribution lie, fp4 those of a 4-bit floating-point number."""

    def kind(self) -> FourBits:
        return self.bnb_4bit_quant_type


@precision("nf4")
class NF4(Four):
    """QLoRA's 4-bit NormalFloat (Dettmers et al. 2023, arXiv:2305.14314): bnb_4bit by another name."""

    def kind(self) -> FourBits:
        return "nf4"


@precision("fp4")
class FP4(Four):
    """4-bit floating-point numbers by bitsandbytes: bnb_4bit with bnb_4bit_quant_type fp4."""

    def kind(self) -> FourBits:
        return "fp4"


@precision("llm_int8")
class LLMInt8(Quantised):
    """LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339): products of 8-bit whole numbers, but for features that are
    far larger than others. Slow on a CPU."""

    package: ClassVar[str] = "bitsandbytes"
    rounds: ClassVar[bool] = True

    llm_int8_threshold: Annotated[float, Gt(0)] = 6.0
    """Features that somewhere exceed this are computed in 16 bits."""

    def room(self, count, row):
        return count, 4 * count / row

    def config(self, skip: list[str]) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=self.llm_int8_threshold, llm_int8_skip_modules=skip
        )
