"""The vector type and its functions against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

numba = pytest.importorskip("numba")

from ascseg_cli.kernels import elementary, lanes  # noqa: E402

EPS = float(np.finfo(np.float32).eps)


def apply(function, x: np.ndarray) -> np.ndarray:
    @numba.njit
    def run(source, target):
        for k in range(0, len(source), 16):
            lanes.store(target, k, function(lanes.load(source, k)))

    y = np.empty_like(x)
    run(x, y)
    return y


@pytest.fixture(scope="module")
def everywhere() -> np.ndarray:
    """Float32 numbers near zero, over the useful range, and far beyond it."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-s, s, 16_000) for s in (1e-6, 1e-2, 1, 10, 80)]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "exact", "bound"),
    [
        (elementary.exp, np.exp, 0.75),
        (elementary.softplus, lambda x: np.logaddexp(0.0, x), 1.25),
        (elementary.sigmoid, lambda x: np.where(x < 0, np.exp(x), 1.0) / (1.0 + np.exp(-np.abs(x))), 1.75),
    ],
    ids=["exp", "softplus", "sigmoid"],
)
def test_functions_err_by_the_last_bit(everywhere, function, exact, bound):
    y, true = apply(function, everywhere).astype(np.float64), exact(everywhere.astype(np.float64))
    assert np.max(np.abs(y - true) / true) <= bound * EPS


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (elementary.exp, [np.nan, 0.0, np.inf, 0.0, np.inf, 1.0, 1.0]),
        (elementary.softplus, [np.nan, 0.0, np.inf, 0.0, 3e38, np.log(2), np.log(2)]),
        (elementary.sigmoid, [np.nan, 0.0, 1.0, 0.0, 1.0, 0.5, 0.5]),
        (elementary.gelu, [np.nan, 0.0, np.inf, 0.0, 3e38, 0.0, 5e-46]),
        (elementary.without_denormals, [np.nan, -np.inf, np.inf, -3e38, 3e38, 0.0, 0.0]),
    ],
    ids=["exp", "softplus", "sigmoid", "gelu", "without_denormals"],
)
def test_functions_at_their_limits(function, expected):
    x = np.zeros(16, np.float32)
    x[:7] = [np.nan, -np.inf, np.inf, -3e38, 3e38, 0.0, 1e-45]
    np.testing.assert_allclose(apply(function, x)[:7], np.array(expected, np.float32), rtol=EPS, atol=0)


def test_gelu_and_its_slope_err_by_the_last_bits_of_what_is_near(everywhere):
    x = everywhere.astype(np.float64)
    normal = 0.5 * scipy.special.erfc(-x / np.sqrt(2))
    assert np.max(np.abs(apply(elementary.gelu, everywhere) - x * normal) / np.maximum(np.abs(x), 1)) <= 2e-7
    slope = normal + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    assert np.max(np.abs(apply(elementary.gelu_slope, everywhere) - slope)) <= 2.5e-7


def test_slow_decays_are_not_biased():
    """exp's mean error near zero: it would be repeated at each of 65,536 steps."""
    x = np.linspace(-1e-2, -1e-5, 160_000, dtype=np.float32)
    error = apply(elementary.exp, x).astype(np.float64) - np.exp(x.astype(np.float64))
    assert abs(error.mean()) <= 5e-3 * EPS


def test_row_totals_are_the_sums_of_rows():
    @numba.njit
    def run(source, start, target):
        lanes.store(target, 0, lanes.row_totals(source, start))

    source = np.random.default_rng(0).integers(-1000, 1000, 16 * 16 + 5).astype(np.float32)
    target = np.zeros(16, np.float32)
    run(source, 5, target)
    np.testing.assert_array_equal(target, source[5:].reshape(16, 16).sum(1))


@pytest.mark.parametrize(("load", "width"), [(lanes.load, 16), (lanes.load8, 8)])
def test_total_is_the_sum(load, width):
    @numba.njit
    def run(source):
        return lanes.total(load(source, 3))

    source = np.arange(40, dtype=np.float32) ** 2
    assert run(source) == source[3 : 3 + width].sum()


def test_arithmetic_takes_lanes_and_numbers():
    @numba.njit
    def run(source, target):
        a, b = lanes.load(source, 0), lanes.load(source, 16)
        lanes.store(target, 0, (2 - a) * b / 4.0 + lanes.fma(a, b, a))

    source = np.arange(1, 33, dtype=np.float32)
    target = np.zeros(16, np.float32)
    run(source, target)
    a, b = source[:16].astype(np.float64), source[16:].astype(np.float64)
    np.testing.assert_allclose(target, (2 - a) * b / 4 + (a * b + a), rtol=2 * EPS)


def test_whole_lanes_count_and_choose():
    @numba.njit
    def run(source, target):
        a = lanes.load(source, 0)
        index = lanes.whole(lanes.floor(a)) * np.int32(3) + np.int32(1)
        lanes.store(target, 0, lanes.least(index, lanes.spread_whole(np.int32(10))))

    source = np.linspace(-4, 6, 16, dtype=np.float32)
    target = np.zeros(16, np.int32)
    run(source, target)
    np.testing.assert_array_equal(target, np.minimum(np.floor(source) * 3 + 1, 10))


def test_turned_rows_are_columns():
    @numba.njit
    def run(source, target):
        lanes.turn(source, 3, 11, target, 5, 9)

    source, target = np.arange(3 + 8 * 11, dtype=np.float32), np.zeros(5 + 8 * 9, np.float32)
    run(source, target)
    np.testing.assert_array_equal(target[5:].reshape(8, 9)[:, :8], source[3:].reshape(8, 11)[:, :8].T)
    assert not target[:5].any()
    assert not target[5:].reshape(8, 9)[:, 8].any()
