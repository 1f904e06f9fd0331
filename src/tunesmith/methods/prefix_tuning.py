"""Train keys and values that every layer's attention finds before a text."""

import inspect
from typing import ClassVar, Literal

from ..config.record import Count
from ..errors import RecipeError
from ._peft import SIZES, Peft, as_many
from .base import method


@method("prefix_tuning")
class PrefixTuning(Peft):
    """Prefix tuning (Li & Liang 2021, arXiv:2101.00190): the keys and values of a few virtual tokens learn, apart for
    each layer; the model stays as it is."""

    num_virtual_tokens: Count = 20
    """How many virtual tokens."""
    prefix_projection: bool = False
    """Have keys and values made by a network that learns, as in the paper; only what it makes is saved."""
    encoder_hidden_size: Count | None = None
    """That network's width; the model's unless given."""
    init_text: str | None = None
    """Begin as what the model makes of this text, repeated or cut to the number of virtual tokens."""
    init_weights: Literal["words", "random", "zero"] | None = None
    """Begin, without such a text, as what the model makes of words drawn at random, with random keys and values, or
    with none. Unless given: words, which the paper found to learn better; random with prefix_projection."""

    suits: ClassVar[tuple[float, float]] = (0.001, 0.1)
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    obeyed: ClassVar[set[str]] = {"num_virtual_tokens"}
    unread: ClassVar[set[str]] = SIZES | {"encoder_hidden_size", "prefix_projection", "init_weights"}

    @property
    def from_words(self) -> bool:
        """Whether it begins as what the model makes of words."""
        usual = "random" if self.prefix_projection else "words"
        return self.init_text is not None or (self.init_weights or usual) == "words"

    def config(self, model, kind):
        from peft import PrefixTuningConfig

        if "past_key_values" not in inspect.signature(model.forward).parameters:
            raise RecipeError(
                f"method: prefix_tuning is for models that read from left to right, which {type(model).__name__} is"
                " not; take prompt_tuning or lora"
            )
        if self.prefix_projection and self.from_words:
            raise RecipeError(
                "method.prefix_projection: a network makes the keys and values, which cannot begin as those of words;"
                " leave out init_text and init_weights, or the projection"
            )
        return PrefixTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.prefix_projection,
            encoder_hidden_size=self.encoder_hidden_size or model.config.get_text_config().hidden_size,
            init_weights="zero" if self.init_weights == "zero" else None,
            **kind,
        )

    def begin(self, model, encode):
        import torch

        if not self.from_words:
            return
        base, prefix = model.get_base_model(), model.prompt_encoder["default"].embedding.weight
        if self.init_text is None:
            words = torch.randint(base.get_input_embeddings().num_embeddings, (self.num_virtual_tokens,))
        else:
            words = torch.tensor(as_many(encode(self.init_text), self.num_virtual_tokens, "init_text"))
        base.eval()
        with torch.no_grad():
            cache = base(input_ids=words[None].to(base.device), use_cache=True).past_key_values
        base.train()
        found = [side[0].transpose(0, 1).flatten(1) for layer in cache.layers for side in (layer.keys, layer.values)]
        if {len(one) for one in found} != {len(prefix)}:
            raise RecipeError(
                f"method.init_weights: what {type(base).__name__} keeps of words is not what a prefix has; take random"
            )
        with torch.no_grad():
            prefix.copy_(torch.cat(found, 1))  # [virtual tokens, layers x (keys, values) x heads x D]
