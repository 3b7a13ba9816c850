"""Intervals against scipy's, and against what an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ascseg_cli.evaluation.bootstrap import Plan, Ratio, grouped, intervals

MEAN = [Ratio((0,), (1,))]  # of columns that hold values, and 1 where there is one


def mean_of(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def skewed(units: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(6, 1.5, units)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_mean_as_scipy_has_it(method: str) -> None:
    values = skewed(60, 1)
    low, high = intervals(mean_of(values), MEAN, Plan(method, resamples=40_000))[0]
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
    low, high = intervals(np.stack([top, bottom], axis=1), MEAN, Plan(resamples=40_000))[0]
    theirs = stats.bootstrap(
        (top, bottom), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis), method="BCa", n_resamples=40_000,
        paired=True, vectorized=True, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))


def test_groups_are_drawn_whole() -> None:
    """Each image ten times in its group: as wide as without the copies, not √10 narrower."""
    values = skewed(40, 3)
    groups = np.repeat(np.arange(40), 10)
    alone = intervals(mean_of(values), MEAN, Plan())[0]
    together = intervals(grouped(mean_of(np.repeat(values, 10)), groups), MEAN, Plan())[0]
    assert together == pytest.approx(alone, abs=1e-12)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        low, high = intervals(mean_of(skewed(50, seed)), MEAN, Plan(resamples=500))[0]
        held += low <= 6 / 7.5 <= high
    assert 176 <= held <= 199  # 190 expected; outside by chance once in 10,000


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_edges(method: str) -> None:
    assert intervals(mean_of(np.ones(1)), MEAN, Plan(method)) == [None]
    assert intervals(mean_of(np.full(5, 0.25)), MEAN, Plan(method)) == [(0.25, 0.25)]
    assert intervals(np.zeros((5, 2)), MEAN, Plan(method)) == [None]


def test_a_value_that_one_image_alone_has() -> None:
    """Most resamples lack it: the figure is that value in all others."""
    columns = np.zeros((5, 2))
    columns[2] = 0.5, 1
    assert intervals(columns, MEAN, Plan()) == [(0.5, 0.5)]


def test_a_resample_like_the_sample_ties_with_it_however_sums_round() -> None:
    """Sums of thousandths round, those of multiples of 2⁻²⁰ don't; among five units such resamples are common."""
    for seed in range(200):
        values = np.random.default_rng(seed).integers(-500, 500, 5) / 1000
        exact = np.round(values * 2**20) / 2**20
        found, expected = (intervals(mean_of(some), MEAN, Plan())[0] for some in (values, exact))
        assert found == pytest.approx(expected, abs=1e-5), f"seed {seed}"


def test_figures_that_share_columns_are_as_with_columns_of_their_own() -> None:
    tp, fp, fn = np.random.default_rng(7).integers(0, 99, (3, 40)).astype(float)
    shared = [Ratio((0, 0), (0, 0, 1, 2)), Ratio((0,), (0, 2))]
    alone = np.stack([2 * tp, 2 * tp + fp + fn, tp, tp + fn], axis=1)
    expected = intervals(alone, [Ratio((0,), (1,)), Ratio((2,), (3,))], Plan())
    assert intervals(np.stack([tp, fp, fn], axis=1), shared, Plan()) == expected


def test_the_same_plan_gives_the_same_interval() -> None:
    columns = mean_of(skewed(30, 4))
    assert intervals(columns, MEAN, Plan()) == intervals(columns, MEAN, Plan())
    assert intervals(columns, MEAN, Plan()) != intervals(columns, MEAN, Plan(seed=1))
