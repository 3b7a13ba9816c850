"""The metrics of a pair against definitions written down a second time, by scipy and by plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from masks import random_pairs
from scipy import ndimage

from ascseg_cli.evaluation.metrics import MASK_METRICS, Counts, Ruler, band_width, case_of, score

CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = np.ones((3, 3), bool)


def directed(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances between edges by scipy: no box, no tricks."""
    a, b = (mask & ~ndimage.binary_erosion(mask, CROSS) for mask in (pred, truth))
    return ndimage.distance_transform_edt(~b)[a], ndimage.distance_transform_edt(~a)[b]


def boundary_iou(pred: np.ndarray, truth: np.ndarray) -> float:
    steps = band_width(pred.shape)
    a, b = (mask & ~ndimage.binary_erosion(mask, SQUARE, iterations=steps) for mask in (pred, truth))
    return (a & b).sum() / (a | b).sum()


def expected(pred: np.ndarray, truth: np.ndarray, tolerance: float) -> dict[str, float | None]:
    """Every metric by its textbook formula and the rules of empty masks."""
    tp, fp = float((pred & truth).sum()), float((pred & ~truth).sum())
    fn, tn = float((~pred & truth).sum()), float((~pred & ~truth).sum())
    values: dict[str, float | None] = {
        "specificity": tn / (tn + fp) if tn + fp else 1.0,
        "accuracy": (tp + tn) / pred.size,
    }
    overlaps = ("dice", "iou", "sensitivity", "precision", "nsd", "boundary_iou")
    if not pred.any() and not truth.any():
        return values | dict.fromkeys(overlaps, 1.0) | {"hd95": 0.0, "asd": 0.0, "area_error": 0.0}
    if not pred.any() or not truth.any():
        error = 1.0 if truth.any() else None
        return values | dict.fromkeys(overlaps, 0.0) | {"hd95": None, "asd": None, "area_error": error}
    there, back = directed(pred, truth)
    both = np.concatenate([there, back])
    return values | {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "precision": tp / (tp + fp),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "asd": both.mean(),
        "nsd": (both <= tolerance).mean(),
        "boundary_iou": boundary_iou(pred, truth),
        "area_error": abs(pred.sum(dtype=float) - truth.sum(dtype=float)) / truth.sum(),
    }


def assert_same(got: dict[str, float | None], wanted: dict[str, float | None]) -> None:
    assert set(got) == set(MASK_METRICS) == set(wanted)
    for name, value in wanted.items():
        assert (got[name] is None) == (value is None), name
        if value is not None:
            assert got[name] == pytest.approx(value, abs=1e-9), name


def test_every_metric_of_thousands_of_small_masks() -> None:
    cases = set()
    for pred, truth in random_pairs(3000, seed=1):
        counts, values = score(pred, truth, Ruler(tolerance=1.5))
        cases.add(case_of(counts))
        assert_same(values, expected(pred, truth, 1.5))
    assert cases == {"found", "missed", "false_alarm", "both_empty"}


def test_large_masks_with_wide_bands() -> None:
    found = 0
    for pred, truth in random_pairs(60, seed=2, largest=400):
        counts, values = score(pred, truth, Ruler())
        found += case_of(counts) == "found"
        assert_same(values, expected(pred, truth, 2.0))
    assert found > 20


def test_far_pixels_of_a_long_picture_are_exact() -> None:
    pred, truth = np.zeros((2, 9001), bool), np.zeros((2, 9001), bool)
    pred[0, 0], truth[1, 9000] = True, True
    assert score(pred, truth, Ruler())[1]["hd95"] == math.sqrt(9000**2 + 1)


def test_lengths_in_millimetres() -> None:
    pred, truth = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    pred[2, 2], truth[2, 5] = True, True
    pixels, millimetres = (score(pred, truth, Ruler(1.0, size))[1] for size in (None, 0.25))
    assert (pixels["hd95"], pixels["asd"], pixels["nsd"]) == (3.0, 3.0, 0.0)
    assert (millimetres["hd95"], millimetres["asd"], millimetres["nsd"]) == (0.75, 0.75, 1.0)


@pytest.mark.parametrize("steps", [1, 3, 6, 7, 12, 14])
@pytest.mark.parametrize("hundredths", [10, 20, 30, 70])
def test_a_tolerance_of_whole_pixels_holds_them_in_millimetres_too(steps: int, hundredths: int) -> None:
    """In whole hundredths nothing rounds: pixels that lie exactly at the tolerance are within, the next aren't."""
    pred, truth, beyond = (np.zeros((3, 40), bool) for _ in range(3))
    pred[1, 2] = truth[1, 2 + steps] = beyond[1, 3 + steps] = True
    ruler = Ruler(steps * hundredths / 100, hundredths / 100)
    assert score(pred, truth, ruler)[1]["nsd"] == 1.0
    assert score(pred, beyond, ruler)[1]["nsd"] == 0.0


def test_other_memory_orders_give_the_same() -> None:
    pred, truth = next(pair for pair in random_pairs(99, seed=3, largest=60) if pair[0].any() and pair[1].any())
    turned = score(np.asfortranarray(pred), np.ascontiguousarray(truth[:, ::-1])[:, ::-1], Ruler())
    assert turned == score(pred, truth, Ruler())


@pytest.mark.parametrize(
    ("counts", "case"),
    [((1, 2, 3, 4), "found"), ((0, 0, 3, 4), "missed"),
     ((0, 2, 0, 4), "false_alarm"), ((0, 0, 0, 4), "both_empty"),
     ((0, 2, 3, 0), "found")],
)  # fmt: skip
def test_cases(counts: tuple[int, int, int, int], case: str) -> None:
    assert case_of(Counts(*counts)) == case
