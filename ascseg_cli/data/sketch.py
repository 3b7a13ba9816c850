"""A picture in 84 bytes, enough to tell whether another is a part of it, in any size, aspect and brightness.

Kept are the lowest 13×13 coefficients of the picture's cosine transform, taken as a function on the unit
square, after each grey level gave way to its rank among the picture's own: that undoes brightness, contrast and
gamma, and keeps a dark lesion from outshouting the rest. A crop of a picture is a linear map of its
coefficients, so crops are compared without the picture. Coefficients are weighted by frequency^1.2, as low ones
are alike in all pictures of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIDE = 13
BYTES = (SIDE * SIDE - 1) // 2  # two coefficients in one
_GRID = 64  # the picture's side when its ranks are taken
_LEVELS = 8  # magnitudes of a coefficient; with its sign 4 bits
_POWER = 0.7  # between them: small coefficients are told apart more finely

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]
WEIGHT = np.hypot(_ROWS, _COLUMNS).astype(np.float32) ** 1.2  # the mean's is 0


def sketch(pixels: np.ndarray) -> bytes:
    """What stays of an image's pixels (h, w, 3) uint8; all zero where they are of one grey."""
    import cv2

    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    levels, counts = np.unique(grey, return_counts=True)
    if len(levels) == 1:
        return bytes(BYTES)
    ranks = (np.cumsum(counts) - counts / 2)[np.searchsorted(levels, grey)] / grey.size
    waves = _cosines()
    weighted = np.einsum("uw,vw->uv", np.einsum("uh,hw->uw", waves, ranks), waves) * WEIGHT
    sizes = np.abs(weighted) / np.abs(weighted).max()
    codes = np.minimum(sizes**_POWER * _LEVELS, _LEVELS - 1).astype(np.uint8) | np.where(weighted > 0, _LEVELS, 0)
    flat = codes.ravel()[1:].astype(np.uint8)
    return bytes(flat[::2] << 4 | flat[1::2])


def coefficients(sketches: Sequence[bytes]) -> np.ndarray:
    """The weighted coefficients of images, up to a factor, (n, SIDE, SIDE) float32; 0 for one without a sketch."""
    there = [one if len(one) == BYTES else bytes(BYTES) for one in sketches]
    both = np.frombuffer(b"".join(there), np.uint8).reshape(len(there), BYTES)
    codes = np.stack((both >> 4, both & 15), axis=2).reshape(len(there), 2 * BYTES)
    sizes = ((codes % _LEVELS + 0.5) / _LEVELS) ** (1 / _POWER)
    values = np.where(codes >= _LEVELS, sizes, -sizes) * both.any(axis=1, keepdims=True)
    return np.pad(values, ((0, 0), (1, 0))).reshape(-1, SIDE, SIDE).astype(np.float32)


def _cosines() -> np.ndarray:
    """∫ √2 cos(π k t) dt over each of the grid's steps from 0 to 1: (SIDE, _GRID); the mean is of no use."""
    edges, k = np.arange(_GRID + 1) / _GRID, np.arange(1, SIDE)[:, None]
    waves = np.sqrt(2) * np.diff(np.sin(np.pi * k * edges) / (np.pi * k), axis=1)
    return np.concatenate([np.full((1, _GRID), 1 / _GRID), waves])
