"""Scores against their definitions counted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from ascseg_cli.training.scores import best_threshold, count


def test_scores_are_the_definitions_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.random(shape, np.float32) for shape in ((5, 7), (3, 3), (8, 2))]
    truths = [rng.random(m.shape) > 0.6 for m in maps]
    inside = union = 0
    dice = []
    for m, t in zip(maps, truths):
        found = {(r, c) for r, c in np.ndindex(m.shape) if m[r, c] >= 0.4}
        true = {(r, c) for r, c in np.ndindex(m.shape) if t[r, c]}
        inside += len(found & true)
        union += len(found | true)
        dice.append(2 * len(found & true) / (len(found) + len(true)))
    counts = count(maps, truths, 0.4)
    assert counts.pooled_iou() == pytest.approx(inside / union)
    assert counts.mean_dice() == pytest.approx(sum(dice) / 3)


def test_empty_masks() -> None:
    empty, full = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    nothing = np.zeros((4, 4), bool)
    assert count([empty], [nothing], 0.5).mean_dice() == 1
    assert count([empty], [nothing], 0.5).pooled_iou() == 1
    assert count([full], [nothing], 0.5).mean_dice() == 0
    assert count([full], [nothing], 0.5).pooled_iou() == 0


def test_threshold_is_where_the_maps_part() -> None:
    truth = np.arange(100).reshape(10, 10) >= 50
    assert best_threshold([np.where(truth, 0.44, 0.37)], [truth]) == 0.4
    assert best_threshold([np.where(truth, 0.9, 0.1)], [truth]) == 0.5


def test_a_gain_that_is_chance_leaves_the_threshold_at_one_half() -> None:
    truth = np.arange(10_000).reshape(100, 100) >= 5000
    probability = np.where(truth, 0.9, 0.1)
    probability[truth & (np.cumsum(truth).reshape(truth.shape) <= 5)] = 0.34  # five pixels in five thousand
    assert best_threshold([probability], [truth]) == 0.5
    probability[truth & (np.cumsum(truth).reshape(truth.shape) <= 50)] = 0.34
    assert best_threshold([probability], [truth]) == 0.3
