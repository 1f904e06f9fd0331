"""Law: how a step is laid out in batches, cut or whole, padded or packed, never changes its gradient."""

import pytest
import torch
from tinyrun import COVER, OFFLINE, loop_of, sequences_for

from tunesmith.data.batch import branches, pack, pad, share
from tunesmith.methods.base import method
from tunesmith.objectives.base import objective

PAIRS = [*COVER, *(("lora", aim) for aim in objective.all() if aim not in OFFLINE)]


def gradient(tiny, name, aim, layout, batch, accumulate):
    """The gradient of one step over eight sequences, after the weights have been moved off their start."""
    drawn = {} if aim in OFFLINE else {"max_completion_length": 48}  # long enough that some answers end before
    return gradient_of(tiny, method[name](), objective[aim](**drawn), layout, batch, accumulate)


def gradient_of(tiny, kind, judge, layout, batch, accumulate):
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
    loop = loop_of(tiny, kind, judge, sequences_for(judge), layout=layout, **sizes)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in loop.weights.values():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    return torch.cat([weight.grad.flatten() for weight in loop.weights.values() if weight.grad is not None])


WAYS = {
    "cut into batches of two": (pad, 2, 4),
    "packed": (pack, 8, 1),
    "what sequences begin with computed once": (share, 8, 1),
}


@pytest.mark.parametrize(("name", "aim"), PAIRS)
def test_how_a_step_is_laid_out_does_not_matter(tiny, name, aim, monkeypatch):
    padded = gradient(tiny, name, aim, pad, 8, 1)
    found = {what: gradient(tiny, name, aim, *way) for what, way in WAYS.items()}
    monkeypatch.setattr("tunesmith.training.loop.AT_ONCE", 20)
    parts = gradient(tiny, name, aim, share, 8, 1)
    for what, one in found.items():
        assert (padded - one).norm() < 1e-5 * padded.norm(), what
    shared = found["what sequences begin with computed once"]
    assert (shared - parts).norm() < 1e-5 * shared.norm(), "a batch in parts"


def test_parts_are_of_like_size_and_lose_nothing(tiny, monkeypatch):
    judge = objective["sft"]()
    loop = loop_of(tiny, method["lora"](), judge, sequences_for(judge))
    [whole] = loop.order.batches(0)
    monkeypatch.setattr("tunesmith.training.loop.AT_ONCE", 20)
    parts = list(loop.parts(0))
    common = branches(loop.sequences)[-1]
    sizes = [sum(len(loop.sequences[n].ids) - common for n in part) for part in parts]
    assert sorted(n for part in parts for n in part) == sorted(whole)
    assert common and len(parts) == 3 and max(sizes) - min(sizes) <= 7
