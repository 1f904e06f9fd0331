"""Which examples a step sees depends on the seed and the step alone, and every epoch sees each once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as any_of

from tunesmith.run import Train
from tunesmith.training.order import Order, fill

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


def test_balanced_batches_have_the_same_of_every_source():
    """Of each its share, by whole numbers, and never none; every example is seen in an epoch, some again."""
    source = [0] * 60 + [1] * 30 + [2] * 10 + [3]
    train = Train(per_device_train_batch_size=8, train_sampling_strategy="balanced", num_train_epochs=2)
    order = Order(train, [1] * len(source), source=source)
    assert order.quotas == [4, 2, 1, 1]
    epochs = [order.laid_out(number) for number in range(2)]
    for batch in epochs[0] + epochs[1]:
        assert [[source[n] for n in batch].count(one) for one in range(4)] == order.quotas
    assert {n for batch in epochs[0] for n in batch} == set(range(len(source)))
    assert epochs[0] != epochs[1] and order.epoch_steps == len(epochs[0]) == 15
    two = [Order(train, [1] * len(source), process, 2, source=source) for process in range(2)]
    assert [one.batches(3)[0] for one in two] == epochs[0][6:8]


def test_several_processes_see_together_what_one_sees():
    one = Order(Train(per_device_train_batch_size=4, gradient_accumulation_steps=2), LENGTHS)
    two = [Order(Train(per_device_train_batch_size=4), LENGTHS, process, 2) for process in range(2)]
    for step in range(one.epoch_steps):
        together = [n for order in two for batch in order.batches(step) for n in batch]
        assert sorted(together) == sorted(n for batch in one.batches(step) for n in batch)


@pytest.mark.parametrize("tokens", [1, 500, 5_000, 25_000])
def test_tokens_end_a_run_with_the_first_step_that_comes_to_them(tokens):
    settings = {"num_train_epochs": 1, "num_train_tokens": tokens}
    one = Order(Train(per_device_train_batch_size=4, gradient_accumulation_steps=2, **settings), LENGTHS)
    seen = [sum(LENGTHS[n] for batch in one.batches(step) for n in batch) for step in range(one.total)]
    assert sum(seen) >= tokens > sum(seen[:-1])
    assert Order(Train(per_device_train_batch_size=4, **settings), LENGTHS, 1, 2).total == one.total
    assert Order(Train(max_steps=2, per_device_train_batch_size=4, **settings), LENGTHS).total <= 2


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


LENGTH_LISTS = any_of.lists(any_of.integers(1, 60), min_size=1, max_size=60)
WAYS = [{"max_tokens_per_batch": 50}, {"packing": True}, {"packing": True, "max_tokens_per_batch": 50}]


@settings(deadline=None, max_examples=50)
@given(LENGTH_LISTS, any_of.sampled_from(WAYS), any_of.integers(1, 3), any_of.integers(1, 3))
def test_by_tokens_too_every_epoch_sees_each_example_once_on_any_number_of_processes(lengths, way, size, processes):
    train = Train(**way, per_device_train_batch_size=size, gradient_accumulation_steps=2, num_train_epochs=2)
    orders = [Order(train, lengths, process, processes, cutoff=50) for process in range(processes)]
    assert len({order.total for order in orders}) == 1
    rows = size if train.packing else 1
    for epoch in range(2):
        steps = range(epoch * orders[0].epoch_steps, (epoch + 1) * orders[0].epoch_steps)
        batches = [batch for step in steps for order in orders for batch in order.batches(step)]
        assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
        long = sum(length > 50 for length in lengths)
        assert sum(sum(lengths[n] for n in batch) > 50 * rows for batch in batches) <= long
    again = Order(train, lengths, 0, processes, cutoff=50)
    last = again.total - 1
    assert again.batches(last) == orders[0].batches(last)


@settings(deadline=None, max_examples=200)
@given(LENGTH_LISTS)
def test_rows_are_filled_up(lengths):
    rows = fill(lengths, 60)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in row) <= 60 for row in rows)
    fewest = -(-sum(lengths) // 60)
    assert len(rows) <= max(fewest, sum(length > 30 for length in lengths)) * 11 / 9 + 1


def test_many_examples_are_filled_in_quickly_and_tightly():
    lengths = [(n * 7919) % 400 + 20 for n in range(20_000)]
    rows = fill(lengths, 2048)
    assert sum(lengths) / (2048 * len(rows)) > 0.99


def test_an_example_that_is_too_long_is_alone():
    assert sorted(map(sorted, fill([5, 99, 4], 10))) == [[0, 2], [1]]
