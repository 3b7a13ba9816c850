"""From pixels to what the network sees, and from its probabilities back to the picture's size.

The two rules are part of the weights: the one ours were trained with, and the original's for imported ones.
Without torch, and no copy of the whole picture in float is made (100 megapixels would need 1.2 GB). Nor by BLAS,
whose threads and the decoding threads get in each other's way, five times over at 12 megapixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ascseg_cli.errors import WeightsError
from ascseg_cli.kernels.weighted_rows import weighted_rows

RULES = ("squeeze_antialias", "stretch_bilinear")


def prepare(
    pixels: np.ndarray, *, rule: str, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The network's input for one picture.

    pixels   (h, w, 3) uint8
    rule     "squeeze_antialias": scaled to `size` with a triangle filter as wide as the step (antialiased,
             aspect not kept), then (x / 255 − mean) / std.
             "stretch_bilinear": the picture's own minimum..maximum over all channels stretched to 0..255, then
             scaled without antialias; `mean` and `std` aren't used. A picture of one value becomes 0.
    size     (rows, columns)
    returns  (3, rows, columns) float32
    Both filters take half-pixel centres: torch's interpolate(align_corners=False), with the same error
    as its float32 (3e-5 to 7e-5 of 255).
    """
    if rule == "squeeze_antialias":
        scaled = _scale(pixels, size, antialias=True)
        mean_, std_ = (np.asarray(v, np.float32)[:, None, None] for v in (mean, std))
        scaled /= np.float32(255)
        scaled -= mean_
        scaled /= std_
        return scaled
    if rule == "stretch_bilinear":
        low, high = int(pixels.min()), int(pixels.max())
        scaled = _scale(pixels, size, antialias=False)
        scaled -= np.float32(low)
        scaled *= np.float32(255 / (high - low) if high > low else 0)
        return scaled
    raise WeightsError(f"unknown preprocessing {rule!r}; known: {', '.join(RULES)}")


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 -> (size[0], size[1]) float32: bilinear, half-pixel centres, no antialias.

    By OpenCV: within 2e-7 of float64, where torch's own float32 errs by 2e-5 and takes five times as long.
    """
    import cv2

    rows, columns = size
    if probability.shape == (rows, columns):
        return probability
    scaled: np.ndarray = cv2.resize(probability, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return scaled


def _scale(pixels: np.ndarray, size: tuple[int, int], *, antialias: bool) -> np.ndarray:
    """(h, w, 3) uint8 -> (3, rows, columns) float32, first along the direction that leaves less to do."""
    h, w, c = pixels.shape
    rows, columns = size
    if rows * w <= 4 * columns * h:  # turning the bytes costs about as much as what it may save
        x = _turned(_filter(pixels.reshape(h, w * c), rows, antialias))  # (rows, w · c) -> (w · c, rows)
        x = _filter(x.reshape(w, c * rows), columns, antialias).reshape(columns, c, rows)
        return np.ascontiguousarray(x.transpose(1, 2, 0))  # -> (c, rows, columns)
    return np.ascontiguousarray(_scale(pixels.swapaxes(0, 1), (columns, rows), antialias=antialias).swapaxes(1, 2))


def _turned(x: np.ndarray) -> np.ndarray:
    """(n, m) float32 -> (m, n): by OpenCV in a fifth of NumPy's time."""
    import cv2

    return np.asarray(cv2.transpose(x)).reshape(x.shape[::-1])


def _filter(x: np.ndarray, m: int, antialias: bool) -> np.ndarray:
    """(n, anything) -> (m, anything) float32 along the first axis."""
    return weighted_rows(x, *_taps(x.shape[0], m, antialias))


def _taps(n: int, m: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Source rows and weights of each output row, both (m, k): a triangle about (i + ½)·n/m − ½, normed.

    Its half width is n/m with antialias, but at least 1; rows outside don't count.
    """
    step = n / m
    reach = max(step, 1.0) if antialias else 1.0
    centre = (np.arange(m) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    after = np.minimum((centre + reach + 0.5).astype(np.int64), n)
    index = first[:, None] + np.arange(int((after - first).max()))
    weight = np.clip(1 - np.abs(index + 0.5 - centre[:, None]) / reach, 0, None) * (index < after[:, None])
    weight /= weight.sum(axis=1, keepdims=True)
    return np.minimum(index, n - 1), weight.astype(np.float32)
