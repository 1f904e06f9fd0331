"""Tiny models and a tokenizer, made in code: two layers, a few hundred words, the same each time."""

import json

import pytest

TEMPLATE = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = 384
LINES = [
    "the film is a warm and funny story of two friends",
    "a dull, lifeless mess that wastes a good cast",
    "is this review positive or negative? answer with one word",
    "positive negative neutral yes no",
    "one two three four five six seven eight nine ten",
    "what is the capital of france? paris, of course",
    "the quick brown fox jumps over the lazy dog",
    "system user assistant You are helpful",
    "0123456789 !?.,:;'\"()[]{}<>/\\|-_=+*&^%$#@~`",
    "电影很好看 服务态度很差",
]


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of 384 words with a ChatML template; its stop token also pads, as in SmolLM2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=WORDS, special_tokens=special, initial_alphabet=alphabet)
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    made.chat_template = TEMPLATE
    return made


def make_tiny(labels: int = 0, **more):
    """A two-layer Llama, the same each time; with `labels`, under a classification head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=1,
        pad_token_id=None,
        num_labels=labels or 2,
        **more,
    )
    return LlamaForSequenceClassification(config) if labels else LlamaForCausalLM(config)


@pytest.fixture
def tiny():
    """Make the tiny model."""
    return make_tiny


@pytest.fixture
def model_folder(tmp_path, tiny, tokenizer):
    """The tiny Llama and its tokenizer as a folder on disk."""
    folder = tmp_path / "tiny"
    tiny().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path):
    """Sixty rows that a tiny model can learn by heart: a text and its label."""
    good, bad = ["warm", "funny", "good", "friends"], ["dull", "lifeless", "mess", "wastes"]
    rows = [
        {"text": f"the film is {word} {n}", "label": label}
        for n in range(10)
        for label, side in (("positive", good), ("negative", bad))
        for word in side[:3]
    ]
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
