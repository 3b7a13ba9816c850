"""Components and cleaning, against scipy's labelling and against masks worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ascseg_cli.inference import components
from ascseg_cli.inference.postprocess import Cleaning, binarise, measure

EIGHT = np.ones((3, 3), dtype=int)


def picture(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def random_masks(count: int = 300) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.random(rng.integers(1, 30, 2)) < rng.random() for _ in range(count)]


def test_components_are_those_of_scipy() -> None:
    for mask in random_masks():
        want, count = ndimage.label(mask, structure=EIGHT)
        found = components.label(mask)
        assert found.count == count
        assert len(set(zip(found.labels.ravel().tolist(), want.ravel().tolist()))) == len(np.unique(want))


def test_filling_is_that_of_scipy() -> None:
    for mask in random_masks():
        np.testing.assert_array_equal(components.filled(mask), ndimage.binary_fill_holes(mask))


def test_small_components_vanish_and_others_stay_whole() -> None:
    for mask in random_masks(100):
        labels, _ = ndimage.label(mask, structure=EIGHT)
        areas = np.bincount(labels.ravel())
        want = mask & (areas[labels] >= 5)
        np.testing.assert_array_equal(components.without_small(mask, 5), want)


def test_the_largest_of_equals_is_the_first_in_reading_order() -> None:
    mask = picture("..#.#", "##..#", ".....", "##..#", "#....")
    want = picture("..#..", "##...", ".....", ".....", ".....")
    np.testing.assert_array_equal(components.largest(mask), want)


@pytest.mark.parametrize("function", [components.largest, components.filled])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (4, 5)])
def test_empty_and_full_masks_stay_what_they_are(function, shape) -> None:  # type: ignore[no-untyped-def]
    for value in (False, True):
        mask = np.full(shape, value)
        np.testing.assert_array_equal(function(mask), mask)


def test_a_mask_is_where_the_probability_reaches_the_threshold() -> None:
    p = np.array([[0.0, 0.3, np.nextafter(np.float32(0.3), np.float32(0))], [0.5, 1.0, 0.29]], np.float32)
    np.testing.assert_array_equal(binarise(p, 0.3), [[False, True, False], [True, True, False]])


def test_cleaning_fills_first_then_drops_the_small_then_keeps_the_largest() -> None:
    mask = picture(
        "####....#",
        "#..#....#",
        "#..#..#..",
        "####.....",
    )
    p = mask.astype(np.float32)
    assert binarise(p, 0.5, Cleaning(fill_holes=True)).sum() == 16 + 3
    assert binarise(p, 0.5, Cleaning(min_area=2)).sum() == 12 + 2
    assert binarise(p, 0.5, Cleaning(min_area=13)).sum() == 0
    assert binarise(p, 0.5, Cleaning(fill_holes=True, min_area=13)).sum() == 16
    assert binarise(p, 0.5, Cleaning(fill_holes=True, keep_largest=True)).sum() == 16
    assert binarise(p, 0.5, Cleaning(min_area=1)).sum() == mask.sum()


def test_figures_of_a_mask() -> None:
    mask = picture(".....", ".##..", "...#.", "#....")
    probability = np.where(mask, np.float32(0.75), np.float32(0.125))
    probability[1, 1] = 1.0
    found = measure(mask, probability)
    assert (found.pixels, found.fraction, found.components) == (4, 4 / 20, 2)
    assert found.box == (0, 1, 4, 3)
    assert found.confidence == pytest.approx((1 + 3 * 0.75) / 4)


def test_an_empty_mask_has_neither_box_nor_confidence() -> None:
    found = measure(np.zeros((3, 4), bool), np.full((3, 4), 0.2, np.float32))
    assert (found.pixels, found.fraction, found.components, found.box, found.confidence) == (0, 0.0, 0, None, None)
