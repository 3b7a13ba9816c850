"""Bootstrap intervals of ratios of sums: means over images, pooled figures, differences, with or without groups.

Every figure of a summary is Σ a / Σ b over units that are drawn with replacement: for a mean a is the value and b
is 1, for pooled IoU a is the hits and b the union. A unit is an image, or a group (a patient) with its sums.
Source: Efron and Tibshirani 1993, chapter 14 (BCa).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_BLOCK = 1 << 20  # draws at a time


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


def intervals(tops: np.ndarray, bottoms: np.ndarray, plan: Plan) -> list[tuple[float, float] | None]:
    """For each of m figures its interval; None with fewer than two units or where nothing is defined.

    tops, bottoms  (units, m) float64; a figure is tops.sum(0) / bottoms.sum(0)
    """
    if len(tops) < 2:
        return [None] * tops.shape[1]
    drawn = _replicates(tops, bottoms, plan)
    sums = zip(tops.sum(axis=0), bottoms.sum(axis=0))
    return [
        _interval(drawn[:, i], float(_ratio(top, bottom)), _ratio(top - tops[:, i], bottom - bottoms[:, i]), plan)
        for i, (top, bottom) in enumerate(sums)
    ]


def grouped(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Sums of (n, m) values over units: (units, m). groups: (n,) number of each image's unit; None: its own."""
    if groups is None:
        return values
    sums = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return sums


def _replicates(tops: np.ndarray, bottoms: np.ndarray, plan: Plan) -> np.ndarray:
    """The figures of each resample, (resamples, m)."""
    generator = np.random.default_rng(plan.seed)
    units = len(tops)
    out = np.empty((plan.resamples, tops.shape[1]))
    rows = max(1, _BLOCK // units)
    for start in range(0, plan.resamples, rows):
        count = min(rows, plan.resamples - start)
        draws = generator.integers(0, units, (count, units), dtype=np.int32)
        draws += np.arange(count, dtype=np.int32)[:, None] * units
        times = np.bincount(draws.ravel(), minlength=count * units).reshape(count, units)
        weights = times.astype(np.float64)
        out[start : start + count] = _ratio(weights @ tops, weights @ bottoms)
    return out


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
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
    below = (np.searchsorted(drawn, whole, "left") + np.searchsorted(drawn, whole, "right")) / (2 * len(drawn))
    if not 0 < below < 1:
        return shares
    away = left.mean() - left
    spread = float((away**2).sum()) ** 1.5
    a = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    z0 = _NORMAL.inv_cdf(float(below))
    z = [z0 + _NORMAL.inv_cdf(share) for share in shares]
    low, high = (_NORMAL.cdf(z0 + x / (1 - a * x)) for x in z)
    return low, high
