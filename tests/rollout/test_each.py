"""Rows that are drawn side by side, each by its own settings: held against the formulas, and against counting."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
import torch

from tunesmith.rollout.each import Draw, draw_each
from tunesmith.rollout.sample import likely

LOGITS = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 2


@dataclass
class One:
    how: Draw
    prompt: list[int] = field(default_factory=list)
    said: Counter = field(default_factory=Counter)
    chance: Random = field(default_factory=lambda: Random(0))
    mask: torch.Tensor | None = None

    def allowed(self):
        return self.mask


@pytest.mark.parametrize(
    "how",
    [Draw(), Draw(temperature=0.6, top_p=0.7), Draw(top_k=4, temperature=1.7), Draw(min_p=0.2)],
    ids=["as it is", "top_p", "top_k", "min_p"],
)
def test_draws_have_the_shares_that_their_settings_say(how):
    rows = [One(how, chance=Random(n)) for n in range(20_000)]
    found = torch.bincount(torch.tensor(draw_each(LOGITS.expand(len(rows), -1), rows)), minlength=12) / len(rows)
    right = likely((LOGITS / how.temperature).log_softmax(-1)[None], how).softmax(-1)[0]
    assert not found[right == 0].any()
    assert (found - right).abs().max() < 5 * 0.5 / len(rows) ** 0.5


@pytest.mark.parametrize("cold", [0.0, 5e-324, 1e-30])
def test_no_temperature_is_too_cold_for_the_likeliest(cold):
    logits = torch.stack([LOGITS, -LOGITS])
    assert draw_each(logits, [One(Draw(temperature=cold)), One(Draw())])[0] == int(LOGITS.argmax())


def test_neighbours_change_nothing():
    rows = [One(Draw()), One(Draw(temperature=0)), One(Draw(top_k=2)), One(Draw(presence_penalty=2), said=Counter([1]))]
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    for row in rows:
        row.chance = Random(9)
    together = draw_each(logits, rows)
    for row in rows:
        row.chance = Random(9)
    assert together == [draw_each(logits[n : n + 1], [row])[0] for n, row in enumerate(rows)]


def test_penalties_and_biases_by_their_formulas():
    """Greedy rows take the likeliest of what the formulas leave."""
    said = Counter({int(LOGITS.argmax()): 2, 3: 1})
    how = Draw(
        temperature=0, presence_penalty=0.5, frequency_penalty=0.8, repetition_penalty=1.3, logit_bias=((5, 1.0),)
    )
    right = LOGITS.double().clone()
    for token in {7, *said}:
        right[token] = right[token] / 1.3 if right[token] > 0 else right[token] * 1.3
    for token, count in said.items():
        right[token] -= 0.5 + 0.8 * count
    right[5] += 1.0
    order = right.argsort(descending=True).tolist()
    mask = torch.ones(12, dtype=torch.bool)
    for token in order:  # take away the best each time, so that all of the order is seen
        assert draw_each(LOGITS[None], [One(how, [7], said, mask=mask)]) == [token]
        mask[token] = False
    assert LOGITS.argmax() != order[0]
