"""The scans of both formats against the recurrence itself, token by token in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ascseg_cli.graphs.to_onnx import scan as onnx_scan
from ascseg_cli.graphs.to_torch import scan as torch_scan

from .conftest import run_nodes

Arrays = tuple[np.ndarray, ...]


def oracle(x: np.ndarray, delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """s_k = exp(Δ_k A)·s_(k−1) + Δ_k B_k x_k, y_k = C_k·s_k, one row, one channel, one token after another."""
    rows, e, l = x.shape
    y = np.zeros((rows, e, l))
    for r in range(rows):
        for c in range(e):
            s = np.zeros(A.shape[1])
            for k in range(l):
                d = float(delta[r, c, k])
                s = np.exp(d * A[c].astype(np.float64)) * s + d * (B @ x[r, :, k].astype(np.float64)) * x[r, c, k]
                y[r, c, k] = (C @ x[r, :, k].astype(np.float64)) @ s
    return y


def in_onnx(x: np.ndarray, delta: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    return run_nodes(lambda g, *names: onnx_scan.selective_scan(g, *names, A, B, C, "scan"), x=x, delta=delta)


def in_torch(*arrays: np.ndarray) -> np.ndarray:
    tensors = (torch.from_numpy(a.astype(np.float32)) for a in arrays)
    levels = torch_scan.levels_for(arrays[0].shape[2])
    return torch_scan.selective_scan(*tensors, levels).numpy()


def drawn(rows: int, e: int, l: int, n: int = 5, reach: float = 1.0) -> Arrays:
    """reach  the largest Δ"""
    rng = np.random.default_rng(l)
    x = rng.standard_normal((rows, e, l)).astype(np.float32)
    delta = rng.uniform(1e-4, reach, (rows, e, l)).astype(np.float32)
    A = -rng.uniform(0.01, 16, (e, n))
    return x, delta, A, rng.standard_normal((n, e)), rng.standard_normal((n, e))


@pytest.mark.parametrize("run", [in_onnx, in_torch])
@pytest.mark.parametrize(
    ("rows", "e", "l"), [(1, 1, 1), (2, 3, 2), (1, 2, 8), (3, 4, 65), (2, 2, 99), (1, 3, 600)]
)
def test_any_length_equals_the_recurrence(run: Callable[..., np.ndarray], rows: int, e: int, l: int) -> None:
    arrays = drawn(rows, e, l)
    want = oracle(*arrays)
    assert np.abs(run(*arrays) - want).max() <= 3e-6 * np.abs(want).max()


@pytest.mark.parametrize("run", [in_onnx, in_torch])
def test_steps_that_forget_everything_stay_finite(run: Callable[..., np.ndarray]) -> None:
    """Forms that divide by the decay since the start overflow here: it is below exp(−10,000)."""
    arrays = drawn(1, 2, 150, reach=50.0)
    want = oracle(*arrays)
    assert np.abs(run(*arrays) - want).max() <= 3e-6 * np.abs(want).max()


@pytest.mark.parametrize("run", [in_onnx, in_torch])
def test_states_reach_from_the_first_token_to_the_last(run: Callable[..., np.ndarray]) -> None:
    """With hardly any decay, what the first token brought must be there after all chunks."""
    x, delta, A, B, C = drawn(1, 2, 300)
    A = np.full_like(A, -1e-4)
    far = x.copy()
    far[:, :, 0] += 5
    got = run(far, delta, A, B, C)[:, :, -1] - run(x, delta, A, B, C)[:, :, -1]
    want = oracle(far, delta, A, B, C)[:, :, -1] - oracle(x, delta, A, B, C)[:, :, -1]
    assert np.abs(want).min() > 1e-3
    assert got == pytest.approx(want, rel=0.02, abs=1e-3)
