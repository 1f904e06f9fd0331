"""Train a small network that makes words which nobody can say, put before every text."""

from typing import ClassVar, Literal

from ..config.record import Count, Fraction
from ._peft import SIZES, Peft
from .base import method


@method("p_tuning")
class PTuning(Peft):
    """P-tuning (Liu et al. 2021, arXiv:2103.10385): prompt tuning whose virtual tokens are made by a network that
    learns; only what it makes is saved."""

    num_virtual_tokens: Count = 20
    """How many virtual tokens."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The network's kind."""
    encoder_hidden_size: Count = 128
    """The network's width."""
    encoder_num_layers: Count = 2
    """Layers of an LSTM; an MLP always has two."""
    encoder_dropout: Fraction = 0.0
    """Dropout between the layers of an LSTM."""

    suits: ClassVar[tuple[float, float]] = (0.001, 0.1)
    peft_type: ClassVar[str] = "P_TUNING"
    obeyed: ClassVar[set[str]] = {"num_virtual_tokens"}
    unread: ClassVar[set[str]] = SIZES | {
        "encoder_hidden_size", "encoder_reparameterization_type", "encoder_num_layers", "encoder_dropout",
    }  # fmt: skip

    def config(self, model, kind):
        from peft import PromptEncoderConfig

        layers = {"encoder_num_layers": self.encoder_num_layers, "encoder_dropout": self.encoder_dropout}
        return PromptEncoderConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            encoder_reparameterization_type=self.encoder_reparameterization_type,
            encoder_hidden_size=self.encoder_hidden_size,
            **(layers if self.encoder_reparameterization_type == "LSTM" else {}),
            **kind,
        )
