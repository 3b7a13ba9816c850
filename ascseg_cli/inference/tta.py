"""From one picture's pixels to its probability map, with or without test-time augmentation.

Augmentation: the network looks at an image and its three mirror images, and the mean counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli.data.preprocess import prepare, resize_probability
from ascseg_cli.network.metadata import Metadata

if TYPE_CHECKING:
    from ascseg_cli.inference.engine import Engine

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # axes: none, left-right, up-down, both


def predict_probability(engine: Engine, pixels: np.ndarray, *, tta: bool = False) -> np.ndarray:
    """Pixels (h, w, 3) uint8 RGB -> probability (h, w) float32, 0..1, in the picture's own pixels."""
    image = engine.prepared(pixels)
    return resize_probability(probabilities(engine, image[None], tta=tta)[0], pixels.shape[:2])


def prepared(pixels: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Pixels (h, w, 3) uint8 RGB -> what the network of these weights looks at, (3, h', w') float32."""
    how = metadata.preprocessing
    return prepare(pixels, rule=how.rule, size=how.size, mean=how.mean, std=how.std)


def probabilities(engine: Engine, images: np.ndarray, *, tta: bool = False) -> np.ndarray:
    """What `engine.prepared` gave, stacked -> probabilities (b, rows, columns) float32.

    tta  the mean over FLIPS, each result flipped back, instead of the images as they are
    """
    if not tta:
        return engine.probabilities(images)
    last = images.ndim - 1 if not engine.takes_pixels else images.ndim - 2  # the columns' axis
    total = np.array(engine.probabilities(images))
    for axes in FLIPS[1:]:
        turned = np.ascontiguousarray(np.flip(images, tuple(last + 1 + axis for axis in axes)))
        total += np.flip(engine.probabilities(turned), axes)
    return total / np.float32(len(FLIPS))
