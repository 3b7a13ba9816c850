"""What the values of a mask file mean: one object on background, or something that no cut at one half can read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ascseg_cli.data.decode import Samples

_MOST_CLASSES = 8  # more different values are grey
_GREY = (0.125, 0.875)  # shares of full scale: between lies neither background, nor foreground, nor a halo of JPEG
_MOST_GREY = 0.10  # of the pixels
_LEAST_COLOUR = 0.01  # of the foreground


@dataclass(frozen=True)
class MaskKind:
    """The kind of a mask in a word or two, and what is wrong with it; `problem` is empty where nothing is.

    name  "empty", "0/1", "0/255", "palette", "grey halos", "other levels"; with a problem "classes", "colours",
          "grey"
    """

    name: str
    problem: str = ""


def mask_kind(samples: Samples) -> MaskKind:
    """The kind of a decoded mask, which `decode.read_mask` reads right wherever there is no problem."""
    values = samples.values
    if values.ndim == 3:
        if _colours(values) > 1:
            return MaskKind("colours", "it has several colours: several classes? save one as 0/255 grey")
        values = values.max(axis=2)
    counts = np.bincount(values.ravel())
    levels = np.flatnonzero(counts)
    largest = int(levels[-1])
    top = 65535 if values.dtype == np.uint16 and largest > 255 else 255
    if largest == 0:
        return MaskKind("empty")
    if all(level in (0, samples.step) for level in levels.tolist()):
        return MaskKind("palette" if samples.palette is not None else f"0/{samples.step}")
    if all(level in (0, top) for level in levels.tolist()):
        return MaskKind("palette" if samples.palette is not None else f"0/{top}")
    return _several(levels, counts[levels], top)


def _several(levels: np.ndarray, counts: np.ndarray, top: int) -> MaskKind:
    shown = ", ".join(map(str, levels[:_MOST_CLASSES].tolist())) + (", …" if len(levels) > _MOST_CLASSES else "")
    if int(levels[-1]) <= top // 2:
        return MaskKind("classes", f"its values are {shown}, neither 0/1 nor 0/255: save one class as 0/255 grey")
    between = (levels > _GREY[0] * top) & (levels < _GREY[1] * top)
    if len(levels) == 2:
        return MaskKind("other levels")
    if len(levels) <= _MOST_CLASSES and between.any():
        return MaskKind("classes", f"its values are {shown}: several classes? save one as 0/255 grey")
    grey = counts[between].sum() / counts.sum()
    if grey > _MOST_GREY:
        return MaskKind("grey", f"{grey:.0%} of its pixels are neither dark nor bright: is it a mask?")
    return MaskKind("grey halos")


def _colours(values: np.ndarray) -> int:
    """How many colours the foreground has, by which of its channels are above half; grey is one of them.

    Rare ones are the edges of JPEG, and so are pixels whose channels hardly differ.
    """
    half = np.iinfo(values.dtype).max // 2
    low, high = values.min(axis=2), values.max(axis=2)
    patterns = ((values > half) * np.array([1, 2, 4], np.uint8)).sum(axis=2, dtype=np.uint8)
    patterns[(high > half) & (high - low < half // 2)] = 7
    counts = np.bincount(patterns.ravel(), minlength=8)[1:]
    return int((counts > _LEAST_COLOUR * max(1, counts.sum())).sum())
