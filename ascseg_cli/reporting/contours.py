"""A mask's outline as an SVG path: a few hundred bytes, sharp at any size, and told apart by its line's style."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

_FINE = 512  # px: smaller masks are enlarged first, so that a line along pixels' centres lies on their edges
_TOLERANCE = 1.0  # of the path's units: how far the drawn line may lie from the mask's
_MOST_POINTS = 300
_MOST_PIECES = 80


def outline(mask: np.ndarray, grid: int) -> str:
    """The outline of a mask (h, w) bool as the text of an SVG path; "" where it is empty.

    grid  units along the image's longer side; coordinates are whole numbers of them, as `frame` says
    Outlines of many points are drawn coarser, and of many pieces only the largest are drawn.
    """
    if not mask.any():
        return ""
    pieces = _pieces(mask, grid)
    for tolerance in (_TOLERANCE, 2.0, 4.0, 8.0):
        lines = [cv2.approxPolyDP(piece, tolerance, closed=True)[:, 0] for piece in pieces]
        if sum(map(len, lines)) <= _MOST_POINTS:
            break
    return "".join(_path(np.rint(line).astype(int)) for line in lines)


def frame(shape: Sequence[int], grid: int) -> tuple[int, int]:
    """Width and height of an image (h, w) in units of its outlines."""
    height, width = shape[:2]
    scale = grid / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _pieces(mask: np.ndarray, grid: int) -> list[np.ndarray]:
    """Closed lines around components and holes, (n, 1, 2) float32 in units of the grid."""
    enlarged = math.ceil(_FINE / max(mask.shape))
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    if enlarged > 1:
        pixels = pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    found, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(found) > _MOST_PIECES:
        found = sorted(found, key=cv2.contourArea, reverse=True)[:_MOST_PIECES]
    scale = grid / max(pixels.shape)
    return [(piece.astype(np.float32) + 0.5) * scale for piece in found]


def _path(points: np.ndarray) -> str:
    """One closed line through points (n, 2) int; a single point is a dot, which round line ends make visible."""
    (x, y), steps = points[0], np.diff(points, axis=0)
    steps = steps[steps.any(axis=1)]
    if not len(steps):
        return f"M{x} {y}h.1"
    words = "".join(f"{step}" if step < 0 else f" {step}" for step in steps.ravel())
    return f"M{x} {y}l{words.lstrip()}z"
