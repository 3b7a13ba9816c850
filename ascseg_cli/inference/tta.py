"""Test-time augmentation: the network looks at an image and its three mirror images, and the mean counts."""

from __future__ import annotations

import numpy as np

from ascseg_cli.inference.engine import Engine

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes: none, left-right, up-down, both


def probabilities(engine: Engine, images: np.ndarray, tta: bool = False) -> np.ndarray:
    """Prepared images (b, 3, h, w) float32 -> probabilities (b, h, w) float32.

    tta  the mean over FLIPS, each result flipped back, instead of the images as they are
    """
    if not tta:
        return engine.probabilities(images)
    total = np.zeros((images.shape[0], *images.shape[2:]), np.float32)
    for axes in FLIPS:
        total += np.flip(engine.probabilities(np.ascontiguousarray(np.flip(images, axes))), axes)
    return total / np.float32(len(FLIPS))
