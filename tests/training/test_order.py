"""Which examples a step sees depends on the seed and the step alone, and every epoch sees each once."""

import pytest

from tunesmith.run import Train
from tunesmith.training.order import Order

LENGTHS = [(n * 7919) % 97 + 1 for n in range(103)]


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_every_epoch_sees_each_example_once(strategy):
    train = Train(
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        train_sampling_strategy=strategy,
    )
    order = Order(train, LENGTHS)
    epochs = [
        [
            n
            for step in range(e * order.epoch_steps, (e + 1) * order.epoch_steps)
            for b in order.batches(step)
            for n in b
        ]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(103))
    assert (epochs[0] == epochs[1]) == (strategy == "sequential")
    assert order.total == 2 * order.epoch_steps == 26


def test_several_processes_see_together_what_one_sees():
    one = Order(Train(per_device_train_batch_size=4, gradient_accumulation_steps=2), LENGTHS)
    two = [Order(Train(per_device_train_batch_size=4), LENGTHS, process, 2) for process in range(2)]
    for step in range(one.epoch_steps):
        together = [n for order in two for batch in order.batches(step) for n in batch]
        assert sorted(together) == sorted(n for batch in one.batches(step) for n in batch)


def test_half_an_epoch_is_half_the_steps():
    assert Order(Train(per_device_train_batch_size=1, num_train_epochs=0.5), LENGTHS).total == 52


def test_batches_are_of_like_length_and_still_shuffled():
    def padded(strategy):
        order = Order(Train(per_device_train_batch_size=8, train_sampling_strategy=strategy), LENGTHS)
        batches = [batch for step in range(order.epoch_steps) for batch in order.batches(step)]
        return sum(len(batch) * max(LENGTHS[n] for n in batch) for batch in batches), batches

    (grouped, batches), (shuffled, _) = padded("group_by_length"), padded("random")
    assert grouped < 1.1 * sum(LENGTHS) < shuffled
    means = [sum(LENGTHS[n] for n in batch) / len(batch) for batch in batches]
    assert means != sorted(means)
