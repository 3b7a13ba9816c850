"""A part of a data set in memory: images and masks at the size from which batches are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli.data import appearance
from ascseg_cli.data.decode import read_mask, read_pixels
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.preprocess import prepare
from ascseg_cli.errors import DataError, InputError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Images:
    """Decoded images of one part.

    pixels     (n, 3, s, s) uint8, squeezed to a square with antialias
    masks      (n, s, s) bool, squeezed alike and cut at one half
    features   n appearance figures, see data.appearance
    names      n file names
    """

    pixels: np.ndarray
    masks: np.ndarray
    features: list[appearance.Features]
    names: list[str]


def load(pairs: Sequence[Pair], size: int) -> Images:
    """Decode every pair, several at a time. Raises DataError naming the file that can't be used."""
    if not pairs:
        raise DataError("this part of the data set holds no image")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loaded = list(pool.map(lambda pair: _load(pair, size), pairs))
    pixels, masks = np.stack([p for p, _, _ in loaded]), np.stack([m for _, m, _ in loaded])
    return Images(pixels, masks, [features for _, _, features in loaded], [pair.image.name for pair in pairs])


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3) uint8 and mask (h, w) bool, the union of the pair's masks. Raises DataError."""
    pixels = _read(read_pixels, pair.image)
    rows, columns = pixels.shape[0], pixels.shape[1]
    mask = np.zeros((rows, columns), bool)
    for path in pair.masks:
        one = _read(read_mask, path)
        if one.shape != mask.shape:
            size = f"{one.shape[1]}×{one.shape[0]}"
            raise DataError(f"{path} is {size} px, its image {pair.image.name} {columns}×{rows}")
        mask |= one
    return pixels, mask


def mean_and_std(pixels: np.ndarray) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each colour over all pixels (n, 3, s, s), as shares of full scale."""
    counts = np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(3)]).astype(np.float64)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt(counts @ levels**2 / counts.sum(1) - mean**2)
    return _colour(mean), _colour(std.clip(1e-3))


def _load(pair: Pair, size: int) -> tuple[np.ndarray, np.ndarray, appearance.Features]:
    pixels, truth = read_pair(pair)
    small = _squeeze(pixels, size) * 255
    mask = _squeeze(np.repeat(truth[..., None].astype(np.uint8) * 255, 3, axis=2), size)[0] >= 0.5
    return small.round().clip(0, 255).astype(np.uint8), mask, appearance.describe(pixels)


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (round(float(value), 4) for value in values)
    return red, green, blue


def _squeeze(pixels: np.ndarray, size: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (3, size, size) float32 in 0..1."""
    return prepare(pixels, rule="squeeze_antialias", size=(size, size), mean=(0, 0, 0), std=(1, 1, 1))


def _read(reader: Callable[[Path], np.ndarray], path: Path) -> np.ndarray:
    try:
        return reader(path)
    except InputError as error:
        raise DataError(f"{path}: {error.message}", error.hint) from error
