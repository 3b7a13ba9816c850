"""The metrics of one prediction against its truth, defined in docs/metrics.md, and the rules of empty masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ascseg_cli.evaluation import surfaces


@dataclass(frozen=True)
class Metric:
    """What a reader of a figure must know.

    kind    overlap: one empty mask gives 0 · error: gives 1 · distance: gives null, the image's diagonal in
            means · agreement: counts pixels, no rule needed · probability: only where probabilities are given
    rising  whether more is better
    """

    name: str
    label: str
    kind: str
    rising: bool = True


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "overlap"),
        Metric("iou", "IoU (Jaccard)", "overlap"),
        Metric("sensitivity", "sensitivity", "overlap"),
        Metric("specificity", "specificity", "agreement"),
        Metric("precision", "precision", "overlap"),
        Metric("accuracy", "accuracy", "agreement"),
        Metric("hd95", "HD95", "distance", rising=False),
        Metric("asd", "average surface dist.", "distance", rising=False),
        Metric("nsd", "surface Dice", "overlap"),
        Metric("boundary_iou", "boundary IoU", "overlap"),
        Metric("area_error", "area error", "error", rising=False),
        Metric("average_precision", "average precision", "probability"),
        Metric("ece", "calibration error", "probability", rising=False),
        Metric("brier", "Brier score", "probability", rising=False),
        Metric("polyp255_dice", "Dice, 256 thresholds", "probability"),
        Metric("polyp255_iou", "IoU, 256 thresholds", "probability"),
    )
}
MASK_METRICS = tuple(name for name, metric in METRICS.items() if metric.kind != "probability")
BOUNDARY_SHARE = 0.02  # of the diagonal: the width of boundary IoU's band (Cheng et al. 2021)


@dataclass(frozen=True)
class Ruler:
    """How lengths are measured.

    pixel_size  of a square pixel's side, in the unit that is wanted (millimetres); None: lengths in pixels
    tolerance   of the surface Dice, in the same unit
    """

    tolerance: float = 2.0
    pixel_size: float | None = None

    @property
    def scale(self) -> float:
        """The unit's length of one pixel."""
        return self.pixel_size or 1.0

    @property
    def unit(self) -> str:
        """Its name."""
        return "mm" if self.pixel_size else "px"


@dataclass(frozen=True)
class Counts:
    """Pixels of one pair: rightly marked, wrongly marked, missed, rightly left."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, pred: np.ndarray, truth: np.ndarray) -> Counts:
        """Of two masks (h, w) bool."""
        tp = int(np.count_nonzero(pred & truth))
        marked, wanted = int(np.count_nonzero(pred)), int(np.count_nonzero(truth))
        return cls(tp, marked - tp, wanted - tp, truth.size - marked - wanted + tp)


def case_of(counts: Counts) -> str:
    """found: both masks hold something · missed: only the truth · false_alarm: only the other · both_empty."""
    pred, truth = counts.tp + counts.fp > 0, counts.tp + counts.fn > 0
    return {
        (True, True): "found",
        (False, True): "missed",
        (True, False): "false_alarm",
        (False, False): "both_empty",
    }[pred, truth]


def score(pred: np.ndarray, truth: np.ndarray, ruler: Ruler) -> tuple[Counts, dict[str, float | None]]:
    """Counts, and every metric of MASK_METRICS by name; None where it is undefined.

    pred, truth  (h, w) bool, of one shape
    """
    pred, truth = np.ascontiguousarray(pred), np.ascontiguousarray(truth)
    counts = Counts.of(pred, truth)
    values = overlaps(counts)
    case = case_of(counts)
    if case == "both_empty":
        values |= {"hd95": 0.0, "asd": 0.0, "nsd": 1.0, "boundary_iou": 1.0}
    elif case == "found":
        values |= _boundaries(pred, truth, ruler)
    else:
        values |= {"hd95": None, "asd": None, "nsd": 0.0, "boundary_iou": 0.0}
    return counts, {name: values[name] for name in MASK_METRICS}


def overlaps(counts: Counts) -> dict[str, float | None]:
    """What follows from the counts alone; 0/0 is 1 where nothing was wrongly marked, else 0."""
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    return {
        "dice": _share(2 * tp, 2 * tp + fp + fn),
        "iou": _share(tp, tp + fp + fn),
        "sensitivity": _share(tp, tp + fn) if tp + fn or not fp else 0.0,
        "specificity": _share(tn, tn + fp),
        "precision": _share(tp, tp + fp) if tp + fp or not fn else 0.0,
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "area_error": abs(fp - fn) / (tp + fn) if tp + fn else None if fp else 0.0,
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _boundaries(pred: np.ndarray, truth: np.ndarray, ruler: Ruler) -> dict[str, float | None]:
    box = _box(pred | truth)
    pred_box, truth_box = np.ascontiguousarray(pred[box]), np.ascontiguousarray(truth[box])
    between = surfaces.distances(pred_box, truth_box)
    width = band_width(pred.shape)
    a, b = surfaces.band(pred_box, width), surfaces.band(truth_box, width)
    return {
        "hd95": between.hausdorff95() * ruler.scale,
        "asd": between.average() * ruler.scale,
        "nsd": between.within(ruler.tolerance / ruler.scale),
        "boundary_iou": float(np.count_nonzero(a & b) / np.count_nonzero(a | b)),
    }


def band_width(shape: tuple[int, ...]) -> int:
    """Boundary IoU's distance in pixels: 2 % of the diagonal, rounded, at least 1."""
    return max(1, round(BOUNDARY_SHARE * math.hypot(*shape)))


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold the whole mask. Outside of it counts as background, and is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
