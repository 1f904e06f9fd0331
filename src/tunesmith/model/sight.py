"""Models that see: images beside the text, laid out among its tokens by the model's own processor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.rendering.chat_template import TooMuch, chat_template
from ..errors import DataError
from .engine import Engine, Ids, reading
from .foreign import read_json
from .load import first_line, quiet
from .rounding import same

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("tunesmith")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
READ = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
"""What a processor makes of the text; all else is of the images."""


@dataclass
class Looked:
    """A prompt's tokens, and what the model sees where some of them stand for images."""

    ids: Ids
    seen: dict[str, Tensor] = field(default_factory=dict)


def sees(folder: Path) -> bool:
    """Whether a folder is of a model that sees, and goes on with what it reads."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    config: Any = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    known = config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return known and not config.get("is_encoder_decoder") and any((folder / name).is_file() for name in PROCESSORS)


class Sight:
    """A model's processor."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.mark = str(processor.image_token)
        self.template = processor.chat_template or self.tokenizer.chat_template
        if not isinstance(self.template, str):
            raise ValueError("its folder has no chat template, or several")

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        images: Sequence[Image],
        more: Mapping[str, Any] | None = None,
    ) -> Looked:
        """Turns whose content is a list of parts, as templates of such models read them, up to where the assistant
        would speak. The template is given `more` beside. Raises DataError."""
        given = {"tools": list(tools) or None, "documents": None, "add_generation_prompt": True}
        given |= {**self.tokenizer.special_tokens_map, **(more or {})}
        try:
            text, _ = chat_template(self.template).render(messages=messages, **given)
        except TooMuch as error:
            raise DataError(f"the chat template {error}; take a model that you trust") from None
        except MemoryError:
            raise
        except Exception as error:  # somebody else's program: it may fail in any way
            raise DataError(f"the chat template refuses this dialogue: {error}") from error
        if text.count(self.mark) != len(images):
            raise DataError(f"the text has {self.mark}, which stands for an image; leave it out")
        more = {"images": list(images)} if images else {}
        with quiet():
            made = self.processor(text=[text], return_tensors="pt", add_special_tokens=False, **more)
        ids = made["input_ids"][0].tolist()
        return Looked(ids, {name: value for name, value in made.items() if name not in READ} if images else {})


def sight_of(folder: Path, model: Any) -> Sight | None:
    """How a model that is served sees; None for one that does not, or whose images our engine cannot give it."""
    from transformers import AutoProcessor

    if not sees(folder):
        return None
    try:
        with quiet():
            sight = Sight(AutoProcessor.from_pretrained(folder, trust_remote_code=False))
        if suits(sight, model):
            return sight
        why = "what it says of an image is not what it says elsewhere: its tokens have places of their own"
    except Exception as error:  # noqa: BLE001 - processors are programs of many people, and fail in many ways
        why = first_line(error) or type(error).__name__
    log.warning("images are not taken: %s", why)
    return None


def suits(sight: Sight, model: Any) -> bool:
    """Whether a model that is asked token by token says of an image what it says of all at once; found by trying."""
    from PIL import Image

    image = Image.linear_gradient("L").convert("RGB").resize((80, 60))
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    looked = sight.prompt([turn], (), [image])
    engine = Engine(model, sight.tokenizer)
    with reading(model):
        read = engine.prefill([looked.ids], [], **looked.seen)
        word = read.logits.argmax(-1)
        step = read.after(word, engine.read)
        seen = {name: value.to(engine.device) for name, value in looked.seen.items()}
        whole = engine.at_once([*looked.ids, int(word)], **seen)
    return same(torch.cat([read.logits, step.logits]), whole[-2:], model.dtype)
