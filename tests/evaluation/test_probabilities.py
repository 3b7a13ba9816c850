"""Calibration and many thresholds against loops that follow the definitions word by word."""

from __future__ import annotations

import numpy as np
import pytest
from masks import random_mask

from ascseg_cli.evaluation import probabilities
from ascseg_cli.evaluation.probabilities import BINS, Reliability


def maps(count: int, seed: int):
    random = np.random.default_rng(seed)
    for i in range(count):
        shape = (int(random.integers(1, 20)), int(random.integers(1, 20)))
        p = random.random(shape).astype(np.float32)
        if i % 3 == 0:  # as they come out of an 8-bit file: exactly on thresholds
            p = (random.integers(0, 256, shape) / 255).astype(np.float32)
        if i % 5 == 0:
            p = (random.random(shape) < 0.5).astype(np.float32)
        yield p, random_mask(random, shape)


def test_the_mean_over_256_thresholds() -> None:
    for p, truth in maps(200, seed=1):
        dice, iou = [], []
        for threshold in np.linspace(1, 0, 256).astype(np.float32):
            mask = p >= threshold
            hits, total = (mask & truth).sum(), mask.sum() + truth.sum()
            dice.append(2 * hits / total if total else 1.0)
            iou.append(hits / (total - hits) if total else 1.0)
        assert probabilities.many_thresholds(p, truth) == pytest.approx((np.mean(dice), np.mean(iou)), abs=1e-12)


def test_average_precision_by_its_definition() -> None:
    for p, truth in maps(100, seed=2):
        if not truth.any():
            assert probabilities.average_precision(p, truth) is None
            continue
        total, before = 0.0, 0.0
        for threshold in sorted(set(p.ravel().tolist()), reverse=True):
            mask = p >= threshold
            recall = (mask & truth).sum() / truth.sum()
            total += (recall - before) * (mask & truth).sum() / mask.sum()
            before = recall
        assert probabilities.average_precision(p, truth) == pytest.approx(total, abs=1e-12)


def test_calibration_of_all_images_is_that_of_all_pixels() -> None:
    whole = Reliability.empty()
    some = list(maps(30, seed=3))
    for p, truth in some:
        whole.add(Reliability.of(p, truth))
    flat = np.concatenate([p.ravel() for p, _ in some]).astype(np.float64)
    truth = np.concatenate([t.ravel() for _, t in some])
    error = 0.0
    for i in range(BINS):
        inside = np.minimum((flat.astype(np.float32) * np.float32(BINS)).astype(int), BINS - 1) == i
        if inside.any():
            error += inside.mean() * abs(flat[inside].mean() - truth[inside].mean())
            assert whole.curve()[i]["mean_probability"] == pytest.approx(flat[inside].mean())
            assert whole.curve()[i]["foreground"] == pytest.approx(truth[inside].mean())
    assert whole.error() == pytest.approx(error, abs=1e-9)
    assert sum(part["pixels"] for part in whole.curve()) == len(flat)
