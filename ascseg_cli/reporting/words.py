"""What each figure of a report is, in a line: beside the figure, where it is needed."""

from __future__ import annotations

import math
from html import escape

from ascseg_cli.printable import printable

METRIC = {
    "dice": "2·tp / (2·tp + fp + fn)",
    "iou": "tp / (tp + fp + fn)",
    "sensitivity": "tp / (tp + fn): the share of the truth that was found",
    "specificity": "tn / (tn + fp): the share of the background that was left alone",
    "precision": "tp / (tp + fp): the share of what was marked that is true",
    "accuracy": "(tp + tn) / all pixels; high wherever the background is large",
    "hd95": "Hausdorff distance: the larger of the two directed 95th percentiles between the outlines",
    "asd": "mean distance between the outlines, both directions together",
    "nsd": "share of both outlines that lies within the tolerance of the other",
    "boundary_iou": "IoU of the bands along the two outlines, 2 % of the diagonal wide",
    "area_error": "|fp − fn| / (tp + fn): by how much the area is wrong",
    "average_precision": "area under precision over recall, all thresholds; undefined without foreground",
    "ece": "mean |probability − share of foreground| over 15 bins, weighted by pixels",
    "brier": "mean of (probability − truth)² over pixels",
    "polyp255_dice": "Dice averaged over 256 thresholds",
    "polyp255_iou": "IoU averaged over 256 thresholds",
}
CASES = {
    "found": "both masks hold something",
    "missed": "nothing was predicted though there is something",
    "false_alarm": "something was predicted though there is nothing",
    "both_empty": "rightly nothing",
}
COUNTS = "tp, fp, fn and tn are pixels rightly marked, wrongly marked, missed and rightly left in one image."
NOTICE = "For research; not a medical device."


def shown(text: object) -> str:
    """Any text, file names above all, safe inside HTML: no mark-up, and no control or bidirectional character."""
    return escape(printable(str(text)))


def figure(value: float | None, sign: str = "") -> str:
    """A figure as the page writes it: `sign` is "+" for differences."""
    if value is None:
        return "–"
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def counted(count: int, thing: str) -> str:
    """1 image, 2 images."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    """Both ends of an interval."""
    return "–" if low is None or high is None else f"{figure(low, sign)} to {figure(high, sign)}"


def short(value: float) -> float | int | None:
    """A figure for the table of images: five digits, more than it shows; whole ones stay whole; NaN is None."""
    if math.isnan(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.5g}")
