"""Polygons, against an even-odd scanline rasteriser through pixel centres that shares no code with the tracing."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from ascseg_cli.inference.polygons import feature_collection, twice_area

Polygon = list[list[list[int]]]


def polygons_of(feature: dict) -> list[Polygon]:  # type: ignore[type-arg]
    geometry = feature["geometry"]
    assert geometry["type"] in ("Polygon", "MultiPolygon")
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def rasterise(polygons: list[Polygon], shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre lies inside by the even-odd rule: for each row, where edges cross the centre line."""
    out = np.zeros(shape, bool)
    for row in range(shape[0]):
        level = row + Fraction(1, 2)
        crossings = sorted(
            x0 + (x1 - x0) * (level - y0) / (y1 - y0)
            for polygon in polygons
            for ring in polygon
            for (x0, y0), (x1, y1) in pairwise(ring)
            if min(y0, y1) < level < max(y0, y1)
        )
        for left, right in zip(crossings[0::2], crossings[1::2]):
            centres = np.arange(shape[1]) + 0.5
            out[row] |= (centres > float(left)) & (centres < float(right))
    return out


def check(mask: np.ndarray) -> None:
    """One feature a component, each the same pixels; rings simple, closed, rightly turned, no spare points."""
    collection = json.loads(json.dumps(feature_collection(mask, np.ones(mask.shape, np.float32), "x")))
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    assert len(collection["features"]) == count
    seen = set()
    for feature in collection["features"]:
        polygons = polygons_of(feature)
        pixels = rasterise(polygons, mask.shape)
        piece = int(labels[pixels][0])
        seen.add(piece)
        np.testing.assert_array_equal(pixels, labels == piece)
        assert feature["properties"]["pixels"] == pixels.sum()
        for polygon in polygons:
            check_rings(polygon)
    assert len(seen) == count


def check_rings(polygon: Polygon) -> None:
    assert twice_area(polygon[0]) > 0
    assert all(twice_area(hole) < 0 for hole in polygon[1:])
    for ring in polygon:
        assert ring[0] == ring[-1]
        points = [tuple(point) for point in ring[:-1]]
        assert len(set(points)) == len(points), "a ring meets itself"
        assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in pairwise(ring)), "an edge is no edge of pixels"
        turns = [(a, b, c) for a, b, c in zip(points, points[1:] + points[:1], points[2:] + points[:2])]
        assert all((a[0] == b[0]) != (b[0] == c[0]) for a, b, c in turns), "a point where nothing turns"


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_come_back_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(500):
        check(rng.random(rng.integers(1, 11, 2)) < rng.random())


def test_every_3x3_mask_comes_back_exactly() -> None:
    for bits in range(512):
        check(np.array([bits >> k & 1 for k in range(9)], bool).reshape(3, 3))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (31, 47)])
def test_empty_full_and_checked_masks(shape: tuple[int, int]) -> None:
    check(np.zeros(shape, bool))
    check(np.ones(shape, bool))
    check(np.indices(shape).sum(0) % 2 == 0)


def test_smooth_shapes_with_holes_and_islands_in_them() -> None:
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.random((90, 120)), 4)
    check(noise > np.median(noise))
    y, x = np.indices((60, 60)) - 30
    check(np.hypot(x, y).astype(int) // 6 % 2 == 0)


def test_the_first_feature_is_the_first_in_reading_order_and_coordinates_are_pixel_corners() -> None:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 4] = True
    mask[3, 0:2] = True
    collection = feature_collection(mask, np.full(mask.shape, 0.25, np.float32), "an image")
    first, second = collection["features"]
    assert first["geometry"] == {"type": "Polygon", "coordinates": [[[4, 1], [5, 1], [5, 3], [4, 3], [4, 1]]]}
    assert second["properties"] == {"component": 2, "pixels": 2, "box": [0, 3, 2, 1], "confidence": 0.25}
    assert collection["image"]["name"] == "an image"
    assert (collection["image"]["width"], collection["image"]["height"]) == (6, 4)
    assert "crs" not in collection


def test_pixels_that_touch_at_a_corner_are_one_feature_of_two_polygons() -> None:
    (feature,) = feature_collection(np.eye(2, dtype=bool), np.ones((2, 2), np.float32), "")["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 2


def test_the_check_itself_notices_a_wrong_ring() -> None:
    with pytest.raises(AssertionError, match="meets itself"):
        check_rings([[[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [0, 1], [0, 0]]])
