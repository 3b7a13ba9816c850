"""The paired test against scipy's, and signs that a reader relies on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ascseg_cli.errors import DataError
from ascseg_cli.evaluation.bootstrap import Plan
from ascseg_cli.evaluation.comparison import compare, signed_rank
from ascseg_cli.evaluation.metrics import Ruler, score
from ascseg_cli.evaluation.scoring import Scored
from ascseg_cli.evaluation.table import Table


@pytest.mark.parametrize("n", [1, 2, 5, 20, 50])
def test_small_samples_are_counted_exactly(n: int) -> None:
    for seed in range(10):
        values = np.random.default_rng(seed).normal(0.3, 1, n)
        assert signed_rank(values)[0] == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [12, 60, 500])
def test_ties_zeros_and_large_samples(n: int) -> None:
    for seed in range(10):
        values = np.random.default_rng(seed).integers(-3, 5, n) / 10
        theirs = stats.wilcoxon(values, method="asymptotic", zero_method="wilcox", correction=False)
        assert signed_rank(values)[0] == pytest.approx(theirs.pvalue, rel=1e-9)


def test_the_effect_by_its_definition() -> None:
    assert signed_rank(np.array([1.0, 2.0, -3.0, 4.0]))[1] == pytest.approx((1 + 2 + 4 - 3) / 10)
    assert signed_rank(np.zeros(4)) == (None, None)


def table(shifts: list[int], names: str) -> Table:
    """A square of 6×6 px, found that far to the side."""
    made = Table()
    truth = np.zeros((20, 40), bool)
    truth[5:11, 5:11] = True
    for name, shift in zip(names, shifts):
        counts, values = score(np.roll(truth, shift, 1), truth, Ruler())
        made.add(Scored(name, (20, 40), counts, values))
    return made


def test_better_is_better_for_rising_and_for_falling_metrics() -> None:
    found = compare(table([0, 1, 2, 9], "abcd"), table([1, 2, 2, 3], "abcd"), Plan(), None, 1.0)
    for name in ("dice", "hd95"):
        one = found.metrics[name]
        assert (one.better, one.worse, one.equal) == (2, 1, 1)
        assert one.effect == pytest.approx(0.0)
    better = compare(table([0, 1], "ab"), table([2, 4], "ab"), Plan(), None, 1.0)
    assert better.metrics["hd95"].mean < 0 < better.metrics["dice"].mean
    assert better.metrics["hd95"].effect == better.metrics["dice"].effect == 1.0


def test_only_images_of_both_count_and_order_does_not() -> None:
    found = compare(table([0, 5, 3], "abc"), table([3, 0, 1], "cax"), Plan(), None, 1.0)
    assert (found.images, found.only_here, found.only_there) == (2, 1, 1)
    assert found.metrics["dice"].equal == 2


def test_nothing_in_common() -> None:
    with pytest.raises(DataError, match="no image is in both"):
        compare(table([0], "a"), table([0], "b"), Plan(), None, 1.0)
