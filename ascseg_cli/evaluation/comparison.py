"""Two sets of predictions on the same images: how much better one is, and whether that could be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ascseg_cli.errors import DataError
from ascseg_cli.evaluation.bootstrap import Plan, Ratio, grouped, intervals
from ascseg_cli.evaluation.metrics import METRICS
from ascseg_cli.evaluation.table import Table

_EXACT = 50  # units: up to so many the distribution is counted, if nothing ties


@dataclass(frozen=True)
class Difference:
    """One metric of this set less that of the other, over the images that both have.

    mean, low, high       of the difference; low, high None with fewer than two units
    p_value               Wilcoxon's signed-rank test, two-sided; None where nothing differs
    effect                matched-pairs rank-biserial correlation, -1..1; above 0: this set is better
    better, worse, equal  images
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    effect: float | None
    better: int
    worse: int
    equal: int


@dataclass(frozen=True)
class Comparison:
    """The differences by metric.

    images           that both sets have
    only_here, only_there  images that one set alone has
    """

    metrics: dict[str, Difference]
    images: int
    only_here: int
    only_there: int


def compare(here: Table, there: Table, plan: Plan, groups: np.ndarray | None, scale: float) -> Comparison:
    """Paired by name. groups: of the images of `here`.

    Raises DataError where no image is in both, or one is twice in `there`.
    """
    mine, theirs = _in_both(here, there)
    if not len(mine):
        raise DataError("no image is in both sets of predictions that are compared", "both need the same names")
    units = None if groups is None else np.unique(groups[mine], return_inverse=True)[1]
    names = [name for name in here.metrics if name in there.metrics]
    columns = np.empty((len(mine), 2 * len(names)))  # of each metric: values, 0 where undefined; 1 where defined
    for i, name in enumerate(names):
        values = here.filled(name, scale)[mine] - there.filled(name, scale)[theirs]
        defined = ~np.isnan(values)
        columns[:, 2 * i], columns[:, 2 * i + 1] = np.where(defined, values, 0.0), defined
    of_units = grouped(columns, units)
    bounds = intervals(of_units, [Ratio((2 * i,), (2 * i + 1,)) for i in range(len(names))], plan)
    differences = {
        name: _difference(name, columns[:, 2 * i : 2 * i + 2], of_units[:, 2 * i : 2 * i + 2], bounds[i])
        for i, name in enumerate(names)
        if columns[:, 2 * i + 1].any()
    }
    return Comparison(differences, len(mine), len(here) - len(mine), len(there) - len(mine))


def _in_both(here: Table, there: Table) -> tuple[np.ndarray, np.ndarray]:
    """The places of the images that both tables have, in each of them, in the order of `here`."""
    places = {name: place for place, name in enumerate(there.names)}
    if len(places) < len(there):
        raise DataError("the table that is compared with has an image twice", "keep one row of each image")
    theirs = np.array([places.get(name, -1) for name in here.names], np.intp)
    mine = np.flatnonzero(theirs >= 0)
    return mine, theirs[mine]


def _difference(
    name: str, columns: np.ndarray, of_units: np.ndarray, bounds: tuple[float, float] | None
) -> Difference:
    """columns, of_units: (images, 2) and (units, 2), a metric's differences and where they are defined."""
    tops, bottoms = of_units.T
    sign = 1 if METRICS[name].rising else -1
    better = sign * columns[columns[:, 1] > 0, 0]
    low, high = bounds or (None, None)
    p_value, effect = signed_rank(tops[bottoms > 0] / bottoms[bottoms > 0])
    return Difference(
        mean=float(tops.sum() / bottoms.sum()),
        low=low,
        high=high,
        p_value=p_value,
        effect=None if effect is None else sign * effect,
        better=int((better > 0).sum()),
        worse=int((better < 0).sum()),
        equal=int((better == 0).sum()),
    )


def signed_rank(differences: np.ndarray) -> tuple[float | None, float | None]:
    """p value (two-sided) and rank-biserial correlation of Wilcoxon's signed-rank test; zeros are left out.

    Counted exactly for up to 50 untied differences without zeros, else the normal approximation with the
    correction for ties. Source: Wilcoxon 1945; Kerby 2014 for the correlation.
    """
    kept = differences[differences != 0]
    n = len(kept)
    if n == 0:
        return None, None
    ranks, ties = _ranks(np.abs(kept))
    total = n * (n + 1) / 2
    positive = float(ranks[kept > 0].sum())
    effect = (2 * positive - total) / total
    smaller = min(positive, total - positive)
    if n <= _EXACT and n == len(differences) and not ties:
        return min(1.0, 2 * _share_at_most(round(smaller), n)), effect
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    z = (smaller - total / 2) / math.sqrt(variance)
    return min(1.0, math.erfc(-z / math.sqrt(2))), effect


def _ranks(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Ranks from 1, tied values sharing their mean rank; and Σ (t³ - t) over ties."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place], float((count.astype(float) ** 3 - count).sum())


def _share_at_most(rank_sum: int, n: int) -> float:
    """The share of the 2ⁿ sets of signs whose positive ranks come to at most `rank_sum`."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank]
    return float(ways[: rank_sum + 1].sum() / 2.0**n)
