"""The figures, held against plain loops, hand-made cases and the meaning of an interval."""

import json
import math
import random
import tracemalloc

import pytest

from tunesmith.evaluate.metrics import Scores, measure, proportion


def macro_f1(gold, predicted):
    """By the definition: precision and recall of each label, one after another."""
    scores = []
    for label in set(gold):
        hits = sum(right == said == label for right, said in zip(gold, predicted, strict=True))
        precision = hits / max(1, predicted.count(label))
        recall = hits / gold.count(label)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


def accuracy(gold, predicted):
    return sum(right == said for right, said in zip(gold, predicted, strict=True)) / len(gold)


def draw(seed, most=60):
    """Answers of any size and skill: some labels are never said, some answers are none of the labels."""
    chance = random.Random(seed)
    labels = "abcdefgh"[: chance.randint(1, 8)]
    gold = [chance.choice(labels) for _ in range(chance.randint(1, most))]
    skill = chance.random()
    return gold, [right if chance.random() < skill else chance.choice(labels[:2] + "?!") for right in gold]


def test_a_case_done_by_hand():
    scores = measure(["a", "a", "a", "b", "b"], ["a", "a", "b", "b", "maybe"], loss=0.5)
    assert (scores.n, scores.accuracy, scores.labels) == (5, 0.6, ("a", "b"))
    assert scores.confusion == ((2, 1, 0), (0, 1, 1))
    # a: precision 2/2, recall 2/3, F1 0.8; b: precision 1/2, recall 1/2, F1 0.5
    assert scores.macro_f1 == pytest.approx(0.65)
    assert scores.perplexity == pytest.approx(1.6487212707)


@pytest.mark.parametrize("seed", range(60))
def test_figures_equal_plain_loops(seed):
    gold, predicted = draw(seed)
    scores = measure(gold, predicted, 0.0)
    assert scores.accuracy == pytest.approx(accuracy(gold, predicted))
    assert scores.macro_f1 == pytest.approx(macro_f1(gold, predicted))
    for label, row in zip(scores.labels, scores.confusion, strict=True):
        said = [answer for right, answer in zip(gold, predicted, strict=True) if right == label]
        assert row[:-1] == tuple(said.count(other) for other in scores.labels)
        assert sum(row) == len(said)


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_the_interval_is_that_of_drawing_rows_with_replacement(seed):
    gold, predicted = draw(seed, most=300)
    chance, rows = random.Random(1), list(zip(gold, predicted, strict=True))
    scores = measure(gold, predicted, 0.0)
    for figure, found in ((accuracy, scores.interval), (macro_f1, scores.macro_f1_interval)):
        drawn = sorted(figure(*map(list, zip(*chance.choices(rows, k=len(rows)), strict=True))) for _ in range(1000))
        assert found == pytest.approx((drawn[25], drawn[974]), abs=0.025)


def test_a_label_that_was_not_drawn_does_not_count():
    # a third of the resamples miss the one wrong row: all that they hold is right
    assert measure(["a"] * 30 + ["b"], ["a"] * 31, 0.0).macro_f1_interval[1] == 1.0


def test_the_interval_holds_the_truth_95_times_in_100():
    chance, truth, held = random.Random(0), 0.8, 0
    for seed in range(400):
        predicted = ["y" if chance.random() < truth else "n" for _ in range(200)]
        low, high = measure(["y"] * 200, predicted, 0.0, seed=seed).interval
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("n", [1, 20, 200])
def test_an_interval_of_a_share_ends_where_the_share_would_just_be_chance(n):
    """Also where all are right, or none: that is not certain."""
    for right in {0, 1, n // 3, n}:
        low, high = proportion(right, n, 0.0).interval
        assert 0 <= low < high <= 1 and low <= right / n <= high
        for end in {low, high} - {0.0, 1.0}:
            assert abs(right / n - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / n), abs=1e-9)


def test_an_interval_of_a_share_holds_the_truth_95_times_in_100():
    for truth in (0.5, 0.8, 0.97):
        held = 0.0
        for right in range(51):
            low, high = proportion(right, 50, 0.0).interval
            held += (low <= truth <= high) * math.comb(50, right) * truth**right * (1 - truth) ** (50 - right)
        assert 0.925 <= held <= 0.985


def test_the_order_of_rows_does_not_matter_and_the_seed_decides():
    gold, predicted = draw(7, most=500)
    rows = list(zip(gold, predicted, strict=True))
    random.Random(0).shuffle(rows)
    shuffled = [list(side) for side in zip(*rows, strict=True)]
    assert measure(gold, predicted, 1.0) == measure(*shuffled, 1.0) == measure(gold, predicted, 1.0, seed=0)
    assert measure(gold, predicted, 1.0).interval != measure(gold, predicted, 1.0, seed=1).interval


def test_without_right_answers_there_is_a_loss_alone():
    scores = measure([], [], 2.0, 7)
    assert (scores.accuracy, scores.interval, scores.macro_f1, scores.n) == (None, None, None, 7)
    assert measure([], [], 2.0).n == 0


@pytest.mark.parametrize(("said", "figure"), [("a", 1.0), ("b", 0.0)])
def test_one_row_is_measured(said, figure):
    scores = measure(["a"], [said], 0.0)
    assert scores.accuracy == scores.macro_f1 == figure
    assert scores.interval == scores.macro_f1_interval == (figure, figure)


def test_rows_and_predictions_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 right answers and 1 predictions"):
        measure(["a", "b"], ["a"], 0.0)


def test_free_text_is_measured_in_little_memory_and_shown_without_a_matrix():
    answers = [f"answer {n}" for n in range(4000)]
    tracemalloc.start()
    scores = measure(answers, answers[:3000] + ["?"] * 1000, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (scores.accuracy, scores.labels, scores.confusion) == (0.75, (), ())
    assert peak < 100 * 2**20  # a matrix for each resample would take 128 GB


def test_what_is_written_as_json_reads_back():
    for scores in (measure(*draw(4), 0.3), measure([], [], 5.0, 3)):
        text = json.dumps(scores.as_json(), allow_nan=False)
        assert Scores.from_json(json.loads(text)) == scores
    facts = measure(["a", "b"], ["a", "a"], 0.3).as_json()
    assert {"accuracy", "interval", "n", "macro_f1", "loss", "perplexity", "labels", "confusion"} <= set(facts)
    assert isinstance(facts["interval"], list)
    assert isinstance(facts["confusion"][0], list)
    assert Scores.from_json(None) is None
    assert Scores.from_json({"loss": 1.0, "n": 2}) == Scores(1.0, 2)


def test_a_huge_loss_is_still_a_figure():
    json.dumps(measure([], [], 1e6).as_json(), allow_nan=False)
