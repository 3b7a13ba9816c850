"""The metrics against the libraries that people use, where they are installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from masks import random_mask, random_pairs

from ascseg_cli.evaluation import probabilities
from ascseg_cli.evaluation.metrics import Counts, Ruler, case_of, score


@pytest.fixture(scope="module")
def monai_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics", reason="MONAI isn't installed", exc_type=ImportError)


def found_pairs(count: int, seed: int, largest: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = list(random_pairs(count, seed, largest))
    return [(p, t) for p, t in pairs if case_of(Counts.of(p, t)) == "found"]


@pytest.mark.filterwarnings("ignore")  # MONAI deprecates its own arguments
def test_monai(monai_metrics) -> None:
    import torch

    pairs = found_pairs(500, seed=5)
    assert len(pairs) > 150
    for pred, truth in pairs:
        p, t = (torch.from_numpy(mask)[None, None].float() for mask in (pred, truth))
        values = score(pred, truth, Ruler(tolerance=1.0))[1]
        hd95 = monai_metrics.compute_hausdorff_distance(p, t, include_background=True, percentile=95)
        asd = monai_metrics.compute_average_surface_distance(p, t, include_background=True, symmetric=True)
        nsd = monai_metrics.compute_surface_dice(p, t, [1.0], include_background=True)
        dice = monai_metrics.compute_dice(p, t, include_background=True)
        iou = monai_metrics.compute_iou(p, t, include_background=True)
        theirs = {"hd95": hd95, "asd": asd, "nsd": nsd, "dice": dice, "iou": iou}
        for name, value in theirs.items():
            assert values[name] == pytest.approx(float(value), abs=1e-4), name


def test_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn isn't installed")
    random = np.random.default_rng(6)
    for _ in range(300):
        shape = (int(random.integers(2, 30)), int(random.integers(2, 30)))
        truth = random_mask(random, shape)
        levels = random.choice([2, 20, 100000])
        p = (random.integers(0, levels + 1, shape) / levels).astype(np.float32)
        values = probabilities.score(p, truth)[1]
        y, q = truth.ravel(), p.ravel()
        assert values["brier"] == pytest.approx(np.mean((q.astype(float) - y) ** 2), abs=1e-12)
        if not truth.any():
            assert values["average_precision"] is None
        else:
            assert values["average_precision"] == pytest.approx(metrics.average_precision_score(y, q), abs=1e-9)
        if truth.any() and not truth.all():
            assert values["brier"] == pytest.approx(metrics.brier_score_loss(y, q), abs=1e-7)
