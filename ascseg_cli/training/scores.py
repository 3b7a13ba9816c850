"""How well probabilities meet the true masks: the figures that stand in the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))  # coarse: validation parts are small
_ALIKE = 0.002  # of pooled IoU: less than this is chance in a part of a hundred images


@dataclass(frozen=True)
class Counts:
    """Pixels of each image at one threshold: hit, wrongly marked, missed; each (n,) int64."""

    hit: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    def pooled_iou(self) -> float:
        """Σ hit / Σ (hit + wrong + missed) over all pixels of all images; 1 where nothing is there to find."""
        union = int((self.hit + self.wrong + self.missed).sum())
        return float(self.hit.sum() / union) if union else 1.0

    def mean_dice(self) -> float:
        """Mean of `dice` over images."""
        return float(self.dice().mean())

    def dice(self) -> np.ndarray:
        """2·hit / (2·hit + wrong + missed) of each image, (n,); 1 for an empty mask found empty."""
        total = 2 * self.hit + self.wrong + self.missed
        return np.where(total > 0, 2 * self.hit / np.maximum(total, 1), 1.0)


def count(probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray], threshold: float) -> Counts:
    """Compare maps (h, w) of 0..1 with masks (h, w) bool, image by image."""
    rows = []
    for probability, truth in zip(probabilities, truths):
        mask = probability >= threshold
        rows.append(((mask & truth).sum(), (mask & ~truth).sum(), (~mask & truth).sum()))
    hit, wrong, missed = np.array(rows, np.int64).reshape(-1, 3).T
    return Counts(hit, wrong, missed)


def best_threshold(probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """The threshold nearest ½ among those of a coarse grid that come within .002 of its highest pooled IoU."""
    iou = {t: count(probabilities, truths, t).pooled_iou() for t in THRESHOLDS}
    alike = [t for t in THRESHOLDS if iou[t] >= max(iou.values()) - _ALIKE]
    return min(alike, key=lambda t: (abs(t - 0.5), -iou[t]))
