"""Law: every method learns every objective, with no line of code for any pair."""

from itertools import product

import pytest
from tinyrun import OFFLINE, loop_of, sequences_for

from tunesmith.methods.base import method
from tunesmith.objectives.base import objective

STEPS = 5


@pytest.mark.parametrize("name, aim", list(product(method.all(), OFFLINE)))
def test_every_pair_learns_and_only_what_is_trainable_moves(tiny, name, aim):
    judge = objective[aim]()
    loop = loop_of(tiny, method[name](), judge, sequences_for(judge), max_steps=STEPS, learning_rate=1e-2)
    before = {key: weight.detach().clone() for key, weight in loop.policy.model.named_parameters()}
    losses = [step.loss for step in loop.fit()]
    assert losses[-1] < losses[0]
    moved = {key for key, weight in loop.policy.model.named_parameters() if not weight.equal(before[key])}
    assert moved
    assert moved <= set(loop.weights)
