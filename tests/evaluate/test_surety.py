"""How far a judgement of pairs can be believed, held against plain loops and long-run chances."""

import math
import random
from itertools import combinations

import numpy as np
import pytest

from tunesmith.data.example import Example
from tunesmith.data.ratings import agreement, halves, margin
from tunesmith.evaluate.surety import agreed, calibration


def by_hand(odds):
    """Calibration error and Brier score in plain loops."""
    bins, brier = {}, 0.0
    for gap in odds:
        chance = 1 / (1 + math.exp(-gap))
        brier += (1 - chance) ** 2
        sure = max(chance, 1 - chance)
        bins.setdefault(min(9, int((sure - 0.5) * 20)), []).append((sure, gap > 0))
    error = sum(abs(sum(sure - hit for sure, hit in found)) for found in bins.values())
    return error / len(odds), brier / len(odds)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_equals_plain_loops(seed):
    draw = random.Random(seed)
    odds = [draw.gauss(0.5, 2) for _ in range(60)]
    found = calibration(odds)
    assert (found.error, found.brier) == pytest.approx(by_hand(odds))
    assert sum(count for *_, count in found.bins) == 60
    assert found.brier_interval[0] < found.brier < found.brier_interval[1]
    assert found.error_interval[0] < found.error < found.error_interval[1]


def test_one_who_is_right_as_often_as_sure_is_calibrated_and_one_who_boasts_is_not():
    draw = np.random.default_rng(0)
    gap = draw.normal(0, 2, 20_000)
    won = draw.random(20_000) < 1 / (1 + np.exp(-gap))
    honest = np.where(won, gap, -gap)
    assert calibration(honest.tolist()).error < 0.01
    assert calibration((3 * honest).tolist()).error > 0.05
    assert calibration([0.0] * 10).brier == 0.25


def test_what_one_rater_says_is_counted_over_all_pairs_of_raters():
    example = Example(ratings=((3.0, 1.0, 2.0), (1.0, 0.0)))
    wins = [1.0, 1.0, 0.5, 1.0, 1.0, 1.0]  # 3>1 3>0 1=1 1>0 2>1 2>0
    assert agreement(example) == pytest.approx(sum(wins) / 6)
    assert margin(example) == pytest.approx(1.5)
    assert agreement(Example(ratings=example.ratings, agreement=0.75)) == 0.75
    assert margin(Example(margin=0.25)) == 0.25
    assert agreement(Example()) is margin(Example()) is None


def test_halves_agree_as_often_as_when_all_halves_are_counted():
    better, worse = (4.0, 1.0, 0.0, 2.0), (1.0, 3.0, -1.0, 0.0)

    def means(ratings):
        for half in combinations(range(4), 2):
            others = [n for n in range(4) if n not in half]
            yield tuple(sum(ratings[n] for n in part) / 2 for part in (half, others))

    def order(gap):
        return 0.5 if gap == 0 else float(gap > 0)

    expected = [
        order(a - c) * order(b - d) + (1 - order(a - c)) * (1 - order(b - d))
        for a, b in means(better)
        for c, d in means(worse)
    ]
    example, draw = Example(ratings=(better, worse)), np.random.default_rng(0)
    found = np.mean([halves(example, draw) for _ in range(60)])
    assert found == pytest.approx(sum(expected) / len(expected), abs=0.03)
    assert halves(Example(ratings=((1.0,), (0.0, 1.0))), draw) is None


def test_the_ceiling_is_said_only_where_it_is_known():
    pair = Example(ratings=((1.0, 2.0), (0.0, 1.0)))
    assert agreed([pair, Example()]) is None
    assert agreed([Example(agreement=0.8), Example(agreement=0.6)]).one == pytest.approx(0.7)
    assert agreed([Example(agreement=0.8)]).halves is None
    found = agreed([pair] * 4)
    assert found.one == pytest.approx(0.875)
    assert found.halves_interval[0] <= found.halves <= found.halves_interval[1]
