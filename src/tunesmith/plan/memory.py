"""What a run holds in memory, by what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .device import GB
from .rehearse import Rehearsed
from .teacher import compared
from .work import Part, Work

if TYPE_CHECKING:
    from .estimate import Subject

WORD = 1000
"""Bytes that a tokenizer takes for each of its words; SmolLM2's 49,152 took 50 MB."""
REMAINS = {"cpu": 0.3, "gpu": 0.05}
"""What lies between tensors that come and go and that none of them fits, as a share of activations."""
BEGUN = {"cpu": 0.07 * GB, "gpu": 0.0}
"""What a run that has begun holds beside that: programs for products, and what rows are read with. On a CPU both are
what runs of SmolLM2-135M had beyond all that is counted here: five methods, sft and dpo, batches of 2 and 8
(docs/plan.md)."""


def in_memory(subject: Subject, work: Work, largest: Rehearsed, states: float) -> dict[str, float]:
    """GB by what they are for, in the moment when most is there: a step, a checkpoint, or measuring."""
    run, device, weights = subject.run, subject.setting.device, subject.held
    cut = subject.setting.devices if subject.setting.shard else 1
    own = weights.bytes
    if run.model.max_memory is not None:
        own = min(own, run.model.max_memory * 1e9 + weights.block)
    own -= unread(subject)
    always = {
        "weights": (own - weights.scales) / cut,
        "scales of quantised weights": weights.scales / cut,
        "gradients": (weights.largest if run.train.optimizer_in_backward else weights.gradients) / cut,
        "optimizer": states / cut,
        "gathered blocks": 2 * weights.block if cut > 1 else 0.0,
        "teacher": subject.teacher.held.bytes if subject.teacher else 0.0,
        "framework": device.framework * GB + BEGUN[device.kind],
        "tokenizer": WORD * subject.found.config.get_text_config().vocab_size if device.kind == "cpu" else 0.0,
    }
    moments = [in_step(subject, work, largest), in_checkpoint(subject, states), *in_measuring(subject, work)]
    if work.answers:
        kept = cached(subject, work.writing, max(work.largest.own))
        moments.append({"KV cache": kept, "logits": said(subject, work.writing), "merged weights": merged(subject)})
    found = always | max(moments, key=lambda moment: sum(moment.values()))
    found["remains"] = REMAINS[device.kind] * found.get("activations", 0.0)
    return {name: size / GB for name, size in found.items() if size}


def unread(subject: Subject) -> float:
    """Bytes of words, frozen beside an adapter, that no head reads: of these a run looks up its own alone. On a CPU the
    others stay in the file, unless they must be written in other numbers."""
    policy, run = subject.policy, subject.run
    if subject.setting.device.kind != "cpu" or policy.model is policy.bare or run.model.max_memory is not None:
        return 0.0
    words, head = (
        getattr(one, "weight", None)
        for one in (policy.bare.get_input_embeddings(), policy.bare.get_output_embeddings())
    )
    stored = str(getattr(subject.found.config, "dtype", None)).removeprefix("torch.")
    if words is None or head is words or words.requires_grad or not str(words.dtype).endswith(stored):
        return 0.0
    return words.nbytes


def in_step(subject: Subject, work: Work, largest: Rehearsed) -> dict[str, float]:
    run, weights, count = subject.run, subject.held, largest.step
    kept, head = count.kept, min(largest.head, count.peak)
    activations = max(count.peak - head, 0)
    if subject.teacher:  # which reads when the model has, and what the backward pass needs of that is waiting
        read = subject.teacher.counted(work.largest, work.learnt, learns=False)
        activations = max(activations, kept + read.step.peak - read.head)
        head += int(compared(work.learnt * work.largest.tokens, subject.found.config.get_text_config().vocab_size))
    if run.train.activation_offload != "no":
        activations = max(activations - kept, 0) + 0.1 * kept
    found = {"activations": float(activations), "logits": float(head)}
    if (run.train.bf16 or run.train.fp16) and str(subject.policy.bare.dtype) == "torch.float32":
        found["activations"] *= 0.75  # what products read is kept in 16 bits, what norms and sums read in 32
        found["copies in 16 bits"] = weights.gradients / 2  # autocast keeps those of weights that learn
    if subject.run.model.precision.quantised:
        found["unpacked weights"] = float(weights.largest)
    return found


def in_checkpoint(subject: Subject, states: float) -> dict[str, float]:
    """What is copied so that training does not wait for the disk: into main memory, also beside a GPU."""
    if subject.run.train.save_strategy == "no" or subject.setting.device.kind != "cpu":
        return {}
    return {"copy for a checkpoint": subject.held.gradients + states}


def in_measuring(subject: Subject, work: Work) -> Iterator[dict[str, float]]:
    """Held-out rows; and of what is asked of general skills and text, whatever has most to be told at once."""
    if work.measured:
        largest = work.measured[0]
        count = subject.counted(largest, 0.0 if subject.labels else work.learnt, learns=False)
        peak = count.step.peak
        if subject.teacher:
            peak = max(peak, subject.teacher.counted(largest, work.learnt, learns=False).step.peak)
        yield {"KV cache": cached(subject, 1, largest.tokens), "activations": float(peak)}
    if work.ranked:
        one = max(work.ranked, key=lambda one: len(one.told) * max(one.told))
        rows, width = len(one.told), max(one.told)
        read = subject.counted(Part((width,) * rows), 0.0, learns=False)
        kept = 2 * cached(subject, rows, max(one.read) + width)  # what was read, and a copy that an answer goes on from
        yield {"KV cache": kept, "activations": float(read.step.peak), "logits": said(subject, rows * width)}


def cached(subject: Subject, rows: int, length: int) -> float:
    """Bytes of keys and values of so many tokens in each of so many rows."""
    text = subject.found.config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    size = subject.policy.bare.dtype.itemsize
    return 2.0 * rows * length * text.num_hidden_layers * keys * width * size


def merged(subject: Subject) -> float:
    """Bytes of weights that LoRA is part of while the model writes, which are held beside those without."""
    from ..model.swift import mergeable

    return float(sum(layer.get_base_layer().weight.nbytes for layer in mergeable(subject.policy.model, blank=True)))


def said(subject: Subject, tokens: int) -> float:
    """Bytes of the log-probabilities of all words, for so many tokens, with what they are made of."""
    return 4.0 * 3 * tokens * subject.found.config.get_text_config().vocab_size
