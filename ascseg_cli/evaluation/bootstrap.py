"""Bootstrap intervals of ratios of sums: means over images, pooled figures, differences, with or without groups.

Every figure of a summary is Σ a / Σ b over units that are drawn with replacement: for a mean a is the value and b
is 1, for pooled IoU a is the hits and b the union. A unit is an image, or a group (a patient) with its sums. Many
figures share few columns (hits, false alarms, …), which are summed once for all of them.
Source: Efron and Tibshirani 1993, chapter 14 (BCa).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_BLOCK = 1 << 20  # draws at a time
_ROUNDING = 1e-12  # of a figure: far more than its sums round, far less than figures differ


@dataclass(frozen=True)
class Plan:
    """How intervals are made.

    method   "bca" or "percentile"
    level    share that an interval is to cover
    resamples, seed  of the draws; the same plan gives the same interval
    """

    method: str = "bca"
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Ratio:
    """A figure: the sum of some columns over the sum of others; one that is named twice counts twice.

    top, bottom  places of columns
    """

    top: tuple[int, ...]
    bottom: tuple[int, ...]

    def of(self, sums: np.ndarray) -> np.ndarray:
        """(…) from sums of the columns (…, k); NaN where the lower sum is 0."""
        return _divide(_added(sums, self.top), _added(sums, self.bottom))

    def without_each(self, columns: np.ndarray) -> np.ndarray:
        """(units,) the figure of all units but one, for each one of columns (units, k)."""
        sums = columns.sum(axis=0)
        top, bottom = (_added(sums, some) - _added(columns, some) for some in (self.top, self.bottom))
        return _divide(top, bottom)


def intervals(columns: np.ndarray, ratios: Sequence[Ratio], plan: Plan) -> list[tuple[float, float] | None]:
    """For each figure its interval; None with fewer than two units or where nothing is defined.

    columns  (units, k) float64
    """
    if len(columns) < 2:
        return [None] * len(ratios)
    drawn, sums = _resampled(columns, plan), columns.sum(axis=0)
    return [_interval(one.of(drawn), float(one.of(sums)), one.without_each(columns), plan) for one in ratios]


def grouped(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Sums of (n, m) values over units: (units, m). groups: (n,) number of each image's unit; None: its own."""
    if groups is None:
        return values
    sums = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return sums


def _resampled(columns: np.ndarray, plan: Plan) -> np.ndarray:
    """The columns' sums over each resample, (resamples, k)."""
    generator = np.random.default_rng(plan.seed)
    units = len(columns)
    out = np.empty((plan.resamples, columns.shape[1]))
    rows = max(1, _BLOCK // units)
    for start in range(0, plan.resamples, rows):
        count = min(rows, plan.resamples - start)
        draws = generator.integers(0, units, (count, units), dtype=np.int32)
        draws += np.arange(count, dtype=np.int32)[:, None] * units
        times = np.bincount(draws.ravel(), minlength=count * units).reshape(count, units)
        out[start : start + count] = times.astype(np.float64) @ columns
    return out


def _added(sums: np.ndarray, places: tuple[int, ...]) -> np.ndarray:
    added: np.ndarray = sums[..., list(places)].sum(axis=-1)
    return added


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _interval(drawn: np.ndarray, whole: float, left: np.ndarray, plan: Plan) -> tuple[float, float] | None:
    drawn = np.sort(drawn[~np.isnan(drawn)])
    if np.isnan(whole) or len(drawn) == 0:
        return None
    tail = (1 - plan.level) / 2
    shares = (tail, 1 - tail)
    if plan.method == "bca":
        shares = _corrected(drawn, whole, left[~np.isnan(left)], shares)
    low, high = np.quantile(drawn, shares)
    return float(low), float(high)


def _corrected(
    drawn: np.ndarray, whole: float, left: np.ndarray, shares: tuple[float, float]
) -> tuple[float, float]:
    """The percentiles of BCa: corrected for bias (z0) and for a spread that changes with the figure (a)."""
    near = _ROUNDING * max(abs(drawn[0]), abs(drawn[-1]))  # a sum in another order is still the same sum
    low, high = np.searchsorted(drawn, whole - near, "left"), np.searchsorted(drawn, whole + near, "right")
    below = (low + high) / (2 * len(drawn))
    if not 0 < below < 1:
        return shares
    away = left.mean() - left
    spread = float((away**2).sum()) ** 1.5
    a = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    z0 = _NORMAL.inv_cdf(float(below))
    z = [z0 + _NORMAL.inv_cdf(share) for share in shares]
    return _NORMAL.cdf(z0 + z[0] / (1 - a * z[0])), _NORMAL.cdf(z0 + z[1] / (1 - a * z[1]))
