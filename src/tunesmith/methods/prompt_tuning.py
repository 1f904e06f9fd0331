"""Train words that nobody can say, put before every text."""

from typing import ClassVar, Literal

from ..config.record import Count
from ._peft import SIZES, Peft, as_many
from .base import method


@method("prompt_tuning")
class PromptTuning(Peft):
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691): the embeddings of a few virtual tokens learn, which stand
    before every sequence; the model stays as it is. It wants a learning rate of 0.01 to 0.3."""

    num_virtual_tokens: Count = 20
    """How many virtual tokens."""
    prompt_tuning_init_text: str | None = None
    """Begin as the words of this text, repeated or cut to the number of virtual tokens."""
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "RANDOM"] = "SAMPLE_VOCAB"
    """Begin, without such a text, as words of the vocabulary drawn at random, or as random numbers."""

    suits: ClassVar[tuple[float, float]] = (0.01, 0.3)
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    obeyed: ClassVar[set[str]] = {"num_virtual_tokens"}
    unread: ClassVar[set[str]] = SIZES | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"}

    def config(self, model, kind):
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens, prompt_tuning_init=self.prompt_tuning_init, **kind
        )

    def begin(self, model, encode):
        from torch import no_grad, tensor

        if self.prompt_tuning_init_text is None:
            return
        words = as_many(encode(self.prompt_tuning_init_text), self.num_virtual_tokens, "prompt_tuning_init_text")
        prompt = model.prompt_encoder["default"].embedding.weight
        with no_grad():
            prompt.copy_(model.get_input_embeddings()(tensor(words, device=prompt.device)))
