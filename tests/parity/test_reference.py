"""The loss and the gradient are those of a plain, padded Hugging Face forward and backward."""

import copy

import pytest
import torch
from tinyrun import loop_of, sequences_for

from tunesmith.data.batch import pad
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT


def plain(model, sequences, accumulate):
    """Loss and gradients by nothing but transformers: padded, labels of -100, the mean over all targets of the step."""
    batch = pad(sequences)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attend}
    if batch.label is not None:
        model.config.pad_token_id = 0
        losses = [
            model(**{k: v[n : n + 1] for k, v in inputs.items()}, labels=batch.label[n : n + 1]).loss
            for n in range(len(sequences))
        ]
        loss = torch.stack(losses).mean()
    else:
        labels = batch.ids.masked_fill(~batch.learn, -100)
        total = int(batch.learn.sum())
        size = len(sequences) // accumulate
        loss = sum(
            model(
                **{k: v[n : n + size] for k, v in inputs.items()}, labels=labels[n : n + size], num_items_in_batch=total
            ).loss
            for n in range(0, len(sequences), size)
        )
    loss.backward()
    return float(loss.detach()), {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("method", [Full(), LoRA(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("judge", [SFT(), Classify()], ids=["sft", "classify"])
def test_loss_and_gradient_equal_a_plain_forward(tiny, judge, method, size, accumulate):
    sequences = sequences_for(judge)[:size] if size > 1 else sequences_for(judge)[:accumulate]
    batch = max(1, len(sequences) // accumulate)
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate, "max_grad_norm": 0}
    loop = loop_of(tiny, method, judge, sequences, train_sampling_strategy="sequential", **settings)
    with torch.no_grad():  # a fresh LoRA adds nothing, so that half of its gradients would be 0
        for name, weight in loop.weights.items():
            weight.add_(0.05 * torch.ones_like(weight) if "lora_B" in name else 0)
    expected, gradients = plain(copy.deepcopy(loop.policy.model), sequences, accumulate)
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    assert tallies["loss"].mean() == pytest.approx(expected, abs=1e-5)
    assert gradients.keys() == {name for name, weight in loop.weights.items() if weight.grad is not None}
    for name, gradient in gradients.items():
        assert torch.allclose(loop.weights[name].grad, gradient, atol=1e-5), name
