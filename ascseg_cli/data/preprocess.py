"""From pixels to what the network sees, and from its probabilities back to the picture's size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def prepare(
    pixels: np.ndarray, *, rule: str, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """(h, w, 3) uint8 -> (3, size[0], size[1]) float32."""
    raise NotImplementedError


def resize_probability(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 -> (size[0], size[1]) float32: bilinear, half-pixel centres, no antialias."""
    raise NotImplementedError
