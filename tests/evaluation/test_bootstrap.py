"""Intervals against scipy's, and against what an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ascseg_cli.evaluation.bootstrap import Plan, grouped, intervals


def skewed(units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(6, 1.5, units)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_mean_as_scipy_has_it(method: str) -> None:
    values = skewed(60, 1)
    low, high = intervals(values[:, None], np.ones((60, 1)), Plan(method, resamples=40_000))[0]
    theirs = stats.bootstrap(
        (values,), np.mean, method="BCa" if method == "bca" else method, n_resamples=40_000, vectorized=True,
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    noise = 0.03 * (theirs.high - theirs.low)  # two sets of 40,000 draws
    assert (low, high) == pytest.approx(tuple(theirs), abs=noise)


def test_a_ratio_of_sums_as_scipy_has_it() -> None:
    random = np.random.default_rng(2)
    bottom = random.integers(1, 100, 50).astype(float)
    top = np.floor(bottom * random.random(50))
    low, high = intervals(top[:, None], bottom[:, None], Plan(resamples=40_000))[0]
    theirs = stats.bootstrap(
        (top, bottom), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), method="BCa", n_resamples=40_000,
        paired=True, vectorized=True, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))


def test_groups_are_drawn_whole() -> None:
    """Each image ten times in its group: as wide as without the copies, not √10 narrower."""
    values = skewed(40, 3)
    groups = np.repeat(np.arange(40), 10)
    copies = np.repeat(values, 10)[:, None]
    alone = intervals(values[:, None], np.ones((40, 1)), Plan())[0]
    together = intervals(grouped(copies, groups), grouped(np.ones_like(copies), groups), Plan())[0]
    assert together == pytest.approx(alone, abs=1e-12)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        low, high = intervals(skewed(50, seed)[:, None], np.ones((50, 1)), Plan(resamples=500))[0]
        held += low <= 6 / 7.5 <= high
    assert 176 <= held <= 199  # 190 expected; outside by chance once in 10,000


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_edges(method: str) -> None:
    one, constant, nothing = np.ones((1, 1)), np.full((5, 1), 0.25), np.zeros((5, 1))
    assert intervals(one, one, Plan(method)) == [None]
    assert intervals(constant, np.ones((5, 1)), Plan(method)) == [(0.25, 0.25)]
    assert intervals(nothing, nothing, Plan(method)) == [None]


def test_a_value_that_one_image_alone_has() -> None:
    """Most resamples lack it: the figure is that value in all others."""
    top, bottom = np.zeros((5, 1)), np.zeros((5, 1))
    top[2], bottom[2] = 0.5, 1
    assert intervals(top, bottom, Plan()) == [(0.5, 0.5)]


def test_the_same_plan_gives_the_same_interval() -> None:
    values, ones = skewed(30, 4)[:, None], np.ones((30, 1))
    assert intervals(values, ones, Plan()) == intervals(values, ones, Plan())
    assert intervals(values, ones, Plan()) != intervals(values, ones, Plan(seed=1))
