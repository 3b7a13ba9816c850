"""Whether images look like those that weights were trained on: a wrong `--dataset` is the likeliest mistake.

A handful of brightness, colour and texture figures an image, taken from a 64×64 px version so that the same
picture gives the same figures at any resolution. An image's distance is the root mean square, over the figures,
of how far it lies from the mean, in units of the range that 95 % of the training images span (1 = at its edge).
The warning comes when the median image of a batch is farther than 99.5 % of the training images were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Features = dict[str, float]
Statistics = dict[str, dict[str, float]]

# feature -> what an image with more of it, and with less of it, is called
_FIGURES: dict[str, tuple[str, str]] = {
    "brightness": ("brighter", "darker"),
    "contrast": ("richer in contrast", "flatter"),
    "shadow": ("lighter in their shadows", "darker in their shadows"),
    "highlight": ("brighter in their lights", "darker in their lights"),
    "black": ("blacker around", "less black around"),
    "centre": ("brighter in the middle", "darker in the middle"),
    "saturation": ("more colourful", "less colourful"),
    "saturation_spread": ("more varied in colour", "more even in colour"),
    "red_green": ("redder", "less red"),
    "green_blue": ("yellower", "bluer"),
    "red_green_spread": ("more varied in red", "more even in red"),
    "green_blue_spread": ("more varied in blue", "more even in blue"),
    "detail": ("finer in texture", "smoother"),
}
_LOGARITHMIC = {  # compared by ratio; the number keeps zero finite
    "contrast": 0.02, "saturation": 0.02, "saturation_spread": 0.01,
    "red_green_spread": 0.01, "green_blue_spread": 0.01, "black": 0.01, "detail": 0.005,
}  # fmt: skip
_FARTHEST = 4.0  # one odd figure (a coloured marker on an ultrasound image) must not outweigh all others
_LEAST = 0.02  # added to each range, so that a figure that never varied (colour in ultrasound) stays comparable
_SMALLER = 4.0  # times smaller than the smallest images seen: enlarging those gives no image like the ones seen


def describe(pixels: npt.NDArray[np.uint8]) -> Features:
    """The figures of one image.

    pixels   (h, w, 3) uint8 RGB
    returns  width and height in px; the rest in units of full scale (0..1), differences in -1..1
    """
    small = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    grey = small @ np.array([0.299, 0.587, 0.114], np.float32)
    chroma = small.max(2) - small.min(2)
    total = small.sum(2) + 0.03
    levels = np.sort(grey, axis=None)
    red_green = (small[..., 0] - small[..., 1]) / total
    green_blue = (small[..., 1] - small[..., 2]) / total
    figures = {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "shadow": _quantile(levels, 0.05),
        "highlight": _quantile(levels, 0.95),
        "black": (grey < 0.08).mean(),
        "centre": grey[16:48, 16:48].mean() - grey.mean(),
        "saturation": chroma.mean(),
        "saturation_spread": chroma.std(),
        "red_green": red_green.mean(),
        "green_blue": green_blue.mean(),
        "red_green_spread": red_green.std(),
        "green_blue_spread": green_blue.std(),
        "detail": (np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2,
    }
    return {name: float(value) for name, value in figures.items()}


def summarise(features: Sequence[Features]) -> Statistics:
    """Statistics of the training images' figures, as they are kept in the weights.

    returns  feature -> mean, standard deviation and the 2.5 % and 97.5 % quantiles (low, high); also "distance",
             each image's distance from these very statistics, whose high is the 99.5 % quantile
    """
    statistics = {name: _summary([f[name] for f in features], 0.025, 0.975) for name in features[0]}
    statistics["distance"] = _summary([distance(f, statistics) for f in features], 0.005, 0.995)
    return statistics


def distance(features: Features, statistics: Statistics) -> float:
    """How far an image lies from those seen: 0 in the middle of every range, 1 at their edges."""
    return math.sqrt(sum(_offset(name, features, statistics) ** 2 for name in _FIGURES) / len(_FIGURES))


def unlike(features: Sequence[Features], statistics: Statistics) -> str | None:
    """One line that says how a batch of images differs from those the weights saw; None where it doesn't.

    Judged by the median image, so a few odd ones among many don't raise it; one image stands for itself.
    """
    if not features or "distance" not in statistics:
        return None
    median = _median([distance(f, statistics) for f in features])
    subject, looks, has = ("these images", "look", "are") if len(features) > 1 else ("this image", "looks", "is")
    seen = "those the weights were trained on"
    if median > statistics["distance"]["high"]:
        return f"{subject} {looks} unlike {seen}: {_difference(features, statistics)}"
    side = _median([min(f["width"], f["height"]) for f in features])
    least = min(statistics["width"]["low"], statistics["height"]["low"])
    if side * _SMALLER < least:
        return f"{subject} {has} only {side:.0f} px, {seen} at least {least:.0f} px"
    return None


def _quantile(ordered: npt.NDArray[np.floating], share: float) -> float:
    """As np.quantile, which loads numpy.ma first: 25 ms of every run's start."""
    place = share * (len(ordered) - 1)
    below = ordered[int(place)]
    above = ordered[math.ceil(place)]
    return float(below + (above - below) * (place - int(place)))


def _median(values: Sequence[float]) -> float:
    return _quantile(np.sort(np.asarray(values, np.float64)), 0.5)


def _summary(values: Sequence[float], low: float, high: float) -> dict[str, float]:
    array = np.asarray(values, np.float64)
    figures = (array.mean(), array.std(), np.quantile(array, low), np.quantile(array, high))
    return {name: round(float(value), 6) for name, value in zip(("mean", "std", "low", "high"), figures)}


def _scaled(name: str, value: float) -> float:
    return math.log2(value + _LOGARITHMIC[name]) if name in _LOGARITHMIC else value


def _offset(name: str, features: Features, statistics: Statistics) -> float:
    """A figure's place in the range seen: 0 at the mean, -1 and 1 at the edges, cut at ±4."""
    low, mean, high = (_scaled(name, statistics[name][edge]) for edge in ("low", "mean", "high"))
    middle = min(max(mean, low), high)  # a few outliers can pull the mean out of the range itself
    away = _scaled(name, features[name]) - middle
    reach = (high - middle if away > 0 else middle - low) + _LEAST
    return max(-_FARTHEST, min(_FARTHEST, away / reach))


def _difference(features: Sequence[Features], statistics: Statistics) -> str:
    offsets = {name: _median([_offset(name, f, statistics) for f in features]) for name in _FIGURES}
    return ", ".join(_FIGURES[name][0 if offsets[name] > 0 else 1] for name in _largest(offsets))


def _largest(offsets: dict[str, float]) -> list[str]:
    return sorted(offsets, key=lambda name: -abs(offsets[name]))[:3]
