"""A model as one GGUF file, the format of llama.cpp and what is built on it.

Weights and words go under the names that the `gguf` package knows, in the order of llama.cpp: rotary positions of its
Llama turn neighbouring numbers, where transformers turns the two halves of a head, so that the rows of queries and keys
are laid anew.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..data.rendering.turns import end_of_turn
from ..errors import BadEnvironment, RecipeError

log = logging.getLogger("tunesmith")

KINDS = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""What llama.cpp calls the models that can be written so."""
WHOLE = {"f32", "f16", "bf16"}
BLOCK = 32
"""Quantised numbers are written by so many of a row."""
FEW_BITS = {"q4_0", "q4_1", "q5_0"}
"""Kinds of numbers with which the first and the last layer keep eight bits, as llama.cpp has them keep more."""


def refuse_unknown(config: Any, tokenizer: Any, numbers: str) -> str:
    """What llama.cpp calls a model of this config. Raises RecipeError where it is not known how to write it."""
    if find_spec("gguf") is None:
        raise BadEnvironment("--to gguf: needs the package gguf; pip install 'tunesmith[gguf]'")
    [kind] = config.architectures or [type(config).__name__]
    if kind not in KINDS:
        raise RecipeError(f"--to gguf: writes {', '.join(KINDS)}; this is a {kind}; deliver it with --to merged")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear"):
        raise RecipeError(
            f"--to gguf: positions of the kind {rope['rope_type']} are not written; deliver it with --to merged"
        )
    rows = {config.hidden_size, config.intermediate_size, config.num_attention_heads * width(config)}
    if numbers not in WHOLE and all(row % BLOCK for row in rows):
        raise RecipeError(
            f"quantization: {numbers} takes {BLOCK} numbers of a row at a time, and rows of this model have"
            f" {', '.join(map(str, sorted(rows)))}, so that none of it would be quantised; take f16"
        )
    splitting(tokenizer)
    return KINDS[kind]


def splitting(tokenizer: Any) -> str:
    """llama.cpp's name for the way in which a tokenizer cuts text into words."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    from ..data.rendering.words import GPT2, GPT2_DIGITS_APART, Unlike, pattern_of

    known: dict[str, str] = {}
    for name, pattern in GGUF_PRE_TOKENIZER_SPLITS.items():
        known.setdefault(pattern, name)
    known |= {GPT2: "gpt-2", GPT2_DIGITS_APART: "smollm"}
    try:
        return known[pattern_of(tokenizer.backend_tokenizer)]
    except (Unlike, KeyError):
        raise RecipeError(
            "--to gguf: the tokenizer cuts text in a way for which llama.cpp has no name that is known here; deliver it"
            " with --to merged, and convert that with llama.cpp's own tools"
        ) from None


def write_gguf(model: Any, tokenizer: Any, file: Path, numbers: str, name: str) -> None:
    """Write a model of ordinary weights, and say how many of its matrices keep 16 bits, for their rows cannot be
    quantised."""
    import gguf

    config = model.config
    kind = refuse_unknown(config, tokenizer, numbers)
    writer = gguf.GGUFWriter(file, kind)
    describe(writer, config, numbers, name)
    words(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config.num_hidden_layers)
    tied, kept, matrices = config.tie_word_embeddings, 0, 0
    for key, weight in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        known = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise RecipeError(f"--to gguf: {key} has no place in a {kind} file; deliver it with --to merged")
        held = held_as(known, tuple(weight.shape), numbers)
        matrices += weight.dim() > 1
        kept += held == "f16" and numbers != "f16"
        if kind == "llama" and (".attn_q." in known or ".attn_k." in known):
            heads = config.num_attention_heads if ".attn_q." in known else config.num_key_value_heads
            weight = turned(weight, heads)
        array = weight.float().contiguous().cpu().numpy()
        raw = gguf.GGMLQuantizationType[held.upper()]
        writer.add_tensor(known, gguf.quants.quantize(array, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if kept:
        why = f"{numbers} takes {BLOCK} numbers of a row at a time, and their rows are no multiple of that"
        log.warning("%d of %d matrices keep 16 bits: %s", kept, matrices, why)


def held_as(name: str, shape: tuple[int, ...], numbers: str) -> str:
    """How the numbers of one tensor are written."""
    if len(shape) == 1 or numbers == "f32":
        return "f32"
    if numbers in WHOLE:
        return numbers
    if shape[-1] % BLOCK:
        return "f16"
    return "q8_0" if numbers in FEW_BITS and name in ("token_embd.weight", "output.weight") else numbers


def width(config: Any) -> int:
    """How many numbers a head has."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def turned(weight: Any, heads: int) -> Any:
    """Rows of queries or keys, or their biases, with the halves of each head interleaved."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def describe(writer: Any, config: Any, numbers: str, name: str) -> None:
    """Say what the model is made of."""
    import gguf

    rope = config.rope_parameters
    size = width(config)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[numbers]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(config.vocab_size)
    if rope.get("rope_type", "default") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


FILE_TYPES = {
    "f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "q5_0": "MOSTLY_Q5_0",
    "q4_1": "MOSTLY_Q4_1", "q4_0": "MOSTLY_Q4_0",
}  # fmt: skip


def words(writer: Any, tokenizer: Any, size: int) -> None:
    """Write the words, how they are put together, and the template; places without a word get a name of their own."""
    import gguf

    kinds, known = gguf.TokenType, {number: word for word, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens = [known.get(number, f"[PAD{number}]") for number in range(max(size, *known))]
    types = [
        kinds.UNUSED
        if number not in known
        else kinds.NORMAL
        if number not in added
        else kinds.CONTROL
        if added[number].special
        else kinds.USER_DEFINED
        for number in range(len(tokens))
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    for which, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            which(number)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
    if turn := end_of_turn(tokenizer):
        writer.add_eot_token_id(tokenizer.convert_tokens_to_ids(turn))
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
