"""A mask as polygons: GeoJSON whose rings run along pixel edges and rasterise back to exactly the same mask.

Coordinates are pixel corners, x to the right and y down, origin at the upper left corner of the upper left pixel:
the pixel in column i and row j is the square from (i, j) to (i + 1, j + 1). There is no geographic reference.

One feature is one 8-connected component. Where parts of it touch at a corner only, they are polygons of one
MultiPolygon, since a ring that touches itself is invalid in most software; every ring here visits a corner
once. In the numbers as they stand exterior rings have positive area and holes negative (RFC 7946, 3.1.6).

How: every lattice point where the boundary turns is a corner. Sorted by rows, corners pair up into the
horizontal edges, sorted by columns into the vertical ones; that gives each corner its successor, without a walk.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ascseg_cli.inference import components

Ring = list[list[int]]
COORDINATES = "pixel corners: x right, y down, (0, 0) is the upper left corner of the upper left pixel"


def feature_collection(mask: np.ndarray, probability: np.ndarray, name: str) -> dict[str, Any]:
    """The mask (h, w) bool as a GeoJSON object, components in reading order.

    probability  (h, w) float32; each feature tells its mean as `confidence`
    name         of the image, kept for the reader
    """
    found = components.label(mask)
    features = [
        _feature(number, polygons, found, piece, probability)
        for number, (piece, polygons) in enumerate(trace(mask, found.labels).items(), start=1)
    ]
    image = {"name": name, "width": mask.shape[1], "height": mask.shape[0], "coordinates": COORDINATES}
    return {"type": "FeatureCollection", "image": image, "features": features}


def _feature(
    number: int, polygons: list[list[Ring]], found: components.Components, piece: int, probability: np.ndarray
) -> dict[str, Any]:
    geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": polygons}
    if len(polygons) == 1:
        geometry = {"type": "Polygon", "coordinates": polygons[0]}
    x, y, width, height = box = found.boxes[piece].tolist()
    area = slice(y, y + height), slice(x, x + width)
    confidence = float(probability[area].mean(dtype=np.float64, where=found.labels[area] == piece))
    properties = {
        "component": number,
        "pixels": int(found.areas[piece]),
        "box": box,
        "confidence": round(confidence, 6),
    }
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def trace(mask: np.ndarray, labels: np.ndarray) -> dict[int, list[list[Ring]]]:
    """The polygons of each component: lists of rings, the exterior first, then its holes, all closed.

    mask     (h, w) bool
    labels   (h, w) int, the component of each pixel
    returns  component -> polygons, in reading order of their upper left corners
    """
    parts = components.label(mask, connectivity=4).labels
    x, y, following, pixel = _corners(mask)
    polygons: dict[int, dict[int, list[Ring]]] = {}
    for cycle in _cycles(following):
        row, column = divmod(pixel[cycle[0]], mask.shape[1])
        rings = polygons.setdefault(int(labels[row, column]), {}).setdefault(int(parts[row, column]), [])
        rings += _simple_rings([[x[i], y[i]] for i in cycle])
    return {piece: [_exterior_first(rings) for rings in found.values()] for piece, found in polygons.items()}


def _corners(mask: np.ndarray) -> tuple[list[int], list[int], list[int], list[int]]:
    """Every turn of the boundary in reading order: x, y, the next turn's index, and a foreground pixel beside it.

    Where two foreground pixels meet at a point there are two turns, one around each, so that they stay apart.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=np.uint8)
    padded[1:-1, 1:-1] = mask
    quad = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    turns = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0])[quad]  # 6 and 9 are the meeting points
    at = np.repeat(np.flatnonzero(turns), turns[turns > 0])
    y, x = np.divmod(at, width + 1)
    second = np.zeros(len(at), dtype=bool)
    second[1:] = at[1:] == at[:-1]
    # Along a row the first copy ends an edge and the second begins one; along a column this order turns around
    # where the lower left and upper right pixels are foreground.
    by_column = np.lexsort((second ^ (quad.ravel()[at] == 6), y, x))
    left, right = np.arange(0, len(at), 2), np.arange(1, len(at), 2)
    below = padded[y[left] + 1, x[left] + 1].astype(bool)  # foreground under the edge: it runs to the right
    other_end = np.empty(len(at), dtype=np.int64)
    other_end[by_column[0::2]], other_end[by_column[1::2]] = by_column[1::2], by_column[0::2]
    following = np.empty_like(other_end)
    start, end = np.where(below, left, right), np.where(below, right, left)
    following[start], following[end] = end, other_end[end]
    pixel = np.repeat((y[left] - ~below) * width + x[left], 2)
    return x.tolist(), y.tolist(), following.tolist(), pixel.tolist()


def _cycles(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation, each from its smallest member."""
    seen = bytearray(len(following))
    cycles = []
    for first in range(len(following)):
        if seen[first]:
            continue
        cycle, at = [], first
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = following[at]
        cycles.append(cycle)
    return cycles


def _simple_rings(path: Ring) -> list[Ring]:
    """A closed path cut wherever it meets itself, so that each ring passes through a point once; closed."""
    rings: list[Ring] = []
    open_: Ring = []
    place: dict[tuple[int, int], int] = {}
    for point in path:
        key = (point[0], point[1])
        if key in place:
            cut = place[key]
            rings.append([*open_[cut:], point])
            for x, y in open_[cut + 1 :]:
                del place[x, y]
            del open_[cut + 1 :]
        else:
            place[key] = len(open_)
            open_.append(point)
    return [[*open_, open_[0]], *rings]


def _exterior_first(rings: list[Ring]) -> list[Ring]:
    return sorted(rings, key=lambda ring: twice_area(ring) < 0)


def twice_area(ring: Ring) -> int:
    """Twice the signed area of a closed ring (shoelace): positive for exteriors, negative for holes."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))
