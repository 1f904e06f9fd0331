"""A tiny model that sees: a LLaVA (Liu et al. 2023, arXiv:2304.08485) of two layers on either side."""

from copy import deepcopy
from io import BytesIO

from conftest import WORDS

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_seer(tokenizer):
    """The model and its processor."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = deepcopy(tokenizer)
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    eye = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=14
    )
    mouth = LlamaConfig(
        vocab_size=WORDS + 8, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=1, pad_token_id=1, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=eye, text_config=mouth, image_token_id=words.convert_tokens_to_ids("<image>"))
    model = LlavaForConditionalGeneration(config).eval()
    for name, weight in model.named_parameters():
        if "multi_modal_projector" in name:
            weight.data *= 20  # what is seen is to be heard
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), words, patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    return model, processor


def drawn(colour, size=(40, 30), kind="PNG"):
    """An image of one colour, as a file."""
    from PIL import Image

    box = BytesIO()
    Image.new("RGB", size, colour).save(box, kind)
    return box.getvalue()
