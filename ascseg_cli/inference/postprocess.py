"""From a probability map to a mask, and from both to the figures of one row of results.csv."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ascseg_cli.inference import components


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask after the threshold, in this order; by default nothing.

    fill_holes    background enclosed by foreground becomes foreground
    min_area      components of fewer pixels vanish
    keep_largest  only the largest component stays
    """

    fill_holes: bool = False
    min_area: int = 0
    keep_largest: bool = False


@dataclass(frozen=True)
class Findings:
    """One mask in figures.

    pixels      foreground pixels
    fraction    of the image, 0..1
    components  8-connected pieces
    box         x, y, width, height in pixels around all foreground; None if there is none
    confidence  mean probability over the foreground, 0..1; None if there is none
    """

    pixels: int
    fraction: float
    components: int
    box: tuple[int, int, int, int] | None
    confidence: float | None


def binarise(probability: np.ndarray, threshold: float, cleaning: Cleaning = Cleaning()) -> np.ndarray:
    """The mask (h, w) bool: probability (h, w) float32 ≥ threshold, then cleaned."""
    mask = probability >= np.float32(threshold)
    if cleaning.fill_holes:
        mask = components.filled(mask)
    if cleaning.min_area > 1:
        mask = components.without_small(mask, cleaning.min_area)
    if cleaning.keep_largest:
        mask = components.largest(mask)
    return mask


def measure(mask: np.ndarray, probability: np.ndarray) -> Findings:
    """The figures of a mask (h, w) bool and the probabilities (h, w) float32 that it came from."""
    pixels = int(np.count_nonzero(mask))
    if pixels == 0:
        return Findings(0, 0.0, 0, None, None)
    whole = mask.view(np.uint8)
    x, y, width, height = cv2.boundingRect(whole)
    box = slice(y, y + height), slice(x, x + width)
    inner = np.ascontiguousarray(whole[box])
    confidence, *_ = cv2.mean(np.ascontiguousarray(probability[box]), mask=inner)  # sums in float64
    return Findings(pixels, pixels / mask.size, components.label(inner).count, (x, y, width, height), confidence)
