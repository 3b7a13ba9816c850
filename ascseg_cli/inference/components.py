"""Connected components of a mask: what counts as one piece of foreground, and what as a hole.

Foreground is 8-connected: pixels that touch at a corner are one piece. Background is 4-connected, its dual, so
that no hole can leak out through a corner. Uses OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Components:
    """The labelled pieces of a mask; index 0 of `areas` and `boxes` is the background.

    labels  (h, w) int32: 0 for background, then 1..count
    areas   (count + 1,) pixels
    boxes   (count + 1, 4) x, y, width, height in pixels
    """

    labels: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return len(self.areas) - 1


def label(mask: np.ndarray, connectivity: int = 8) -> Components:
    """The components of a mask (h, w) bool; `connectivity` 4 where corners are to separate."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    return Components(labels, stats[:, cv2.CC_STAT_AREA], stats[:, : cv2.CC_STAT_AREA])


def without_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """The mask without components of fewer than `min_area` pixels."""
    found = label(mask)
    keep = found.areas >= min_area
    keep[0] = False
    return keep[found.labels]


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest component alone; of equally large ones the first in reading order; an empty mask stays empty."""
    found = label(mask)
    if found.count == 0:
        return mask.copy()
    biggest = np.flatnonzero(found.areas[1:] == found.areas[1:].max()) + 1
    labels = found.labels.ravel()
    return found.labels == labels[np.isin(labels, biggest).argmax()]


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: background that no 4-connected path joins to the image's border."""
    found = label(~mask, connectivity=4)
    labels = found.labels
    reaches_border = np.zeros(len(found.areas), dtype=bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reaches_border[border] = True
    reaches_border[0] = False  # label 0 is the foreground here
    return ~reaches_border[labels]
