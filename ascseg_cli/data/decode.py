"""One decoder for images and masks: whatever the file, RGB bytes as a viewer shows them, or one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MAX_PIXELS = 178_956_970


def read_pixels(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as RGB.

    source   a path, or a whole file's bytes
    returns  (h, w, 3) uint8, turned as EXIF says; alpha dropped; 16 bit as round(x / 257)
    Raises InputError: the message names the rule, the caller adds the file's name.
    """
    raise NotImplementedError


def read_mask(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The mask, (h, w) bool: > 0 where the largest value is 1 (palettes: the index), otherwise > 127."""
    raise NotImplementedError
