"""What probabilities tell beyond one threshold: ranking, calibration, and the mean over many thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
THRESHOLDS = (np.arange(256) / 255).astype(np.float32)  # of the polyp papers: 0, 1/255, … 1


@dataclass
class Reliability:
    """Pixels by their probability, in BINS bins of equal width; adds up over images.

    pixels      (BINS,) how many
    confidence  (BINS,) sum of their probabilities
    foreground  (BINS,) how many of them are foreground in the truth
    """

    pixels: np.ndarray
    confidence: np.ndarray
    foreground: np.ndarray

    @classmethod
    def empty(cls) -> Reliability:
        """Of no pixel."""
        return cls(*(np.zeros(BINS) for _ in range(3)))

    @classmethod
    def of(cls, p: np.ndarray, truth: np.ndarray) -> Reliability:
        """Of probabilities (h, w) float32 and truth (h, w) bool; bin i begins at i/BINS, the last holds 1."""
        flat = p.ravel()
        place = np.minimum((flat * np.float32(BINS)).astype(np.intp), BINS - 1)
        return cls(
            np.bincount(place, minlength=BINS).astype(np.float64),
            np.bincount(place, flat, BINS),
            np.bincount(place[truth.ravel()], minlength=BINS).astype(np.float64),
        )

    def add(self, other: Reliability) -> None:
        """Count another image's pixels too."""
        self.pixels += other.pixels
        self.confidence += other.confidence
        self.foreground += other.foreground

    def error(self) -> float | None:
        """Expected calibration error: mean of |mean p - share of foreground| over bins, weighted by pixels."""
        total = self.pixels.sum()
        return float(np.abs(self.confidence - self.foreground).sum() / total) if total else None

    def curve(self) -> list[dict[str, float | int | None]]:
        """One entry a bin: its bounds, its pixels, their mean probability and their share of foreground."""
        return [
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "pixels": int(n),
                "mean_probability": float(self.confidence[i] / n) if n else None,
                "foreground": float(self.foreground[i] / n) if n else None,
            }
            for i, n in enumerate(self.pixels)
        ]


def score(p: np.ndarray, truth: np.ndarray) -> tuple[Reliability, dict[str, float | None]]:
    """The reliability counts and every metric of the kind `probability` by name; None where undefined.

    p      (h, w) float32, 0..1
    truth  (h, w) bool
    """
    reliability = Reliability.of(p, truth)
    dice, iou = many_thresholds(p, truth)
    return reliability, {
        "average_precision": average_precision(p, truth),
        "ece": reliability.error(),
        "brier": float(np.square(np.subtract(p, truth, dtype=np.float64)).mean()),
        "polyp255_dice": dice,
        "polyp255_iou": iou,
    }


def average_precision(p: np.ndarray, truth: np.ndarray) -> float | None:
    """Σ (recall_k - recall_{k-1}) · precision_k over falling distinct probabilities; None for an empty truth."""
    positives = int(np.count_nonzero(truth))
    if not positives:
        return None
    # Bits of a float that isn't negative order as the float does, so one sort of whole numbers does both at once.
    keys = (np.ascontiguousarray(p, np.float32).ravel() + np.float32(0)).view(np.uint32) << np.uint32(1)
    keys = np.sort(keys | truth.ravel())[::-1]
    last = np.flatnonzero(np.append(keys[1:] >> 1 != keys[:-1] >> 1, True))
    hits = np.cumsum(keys & 1)[last].astype(np.float64)
    return float((np.diff(hits, prepend=0) / positives * (hits / (last + 1))).sum())


def many_thresholds(p: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Means of Dice and IoU of p ≥ t over THRESHOLDS, as the polyp papers state them; both empty: 1."""
    flat = np.ascontiguousarray(p, np.float32).ravel()
    place = np.minimum((flat * np.float32(255)).astype(np.intp), 255)
    place -= flat < THRESHOLDS[place]
    place += flat >= np.append(THRESHOLDS, np.float32(2))[place + 1]
    of_truth = np.bincount(place[truth.ravel()], minlength=256)
    marked = np.bincount(place, minlength=256)[::-1].cumsum()
    hits = of_truth[::-1].cumsum()
    total = marked + of_truth.sum()
    dice = np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)
    iou = np.where(total > 0, hits / np.maximum(total - hits, 1), 1.0)
    return float(dice.mean()), float(iou.mean())
