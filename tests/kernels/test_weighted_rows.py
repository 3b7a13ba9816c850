"""Weighted sums of rows: compiled and in NumPy to the last bit, and both against loops in float64."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ascseg_cli.kernels import machine_code, weighted_rows
from ascseg_cli.kernels.kernel import by_numba
from ascseg_cli.kernels.weighted_rows import cpu_kernels, in_numpy


def drawn(line: int, kind: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(line)
    x = rng.integers(0, 256, (40, line)).astype(kind)
    if kind is np.float32:
        x += rng.random(x.shape, np.float32)
    index = np.minimum(np.arange(0, 38, 3)[:, None] + np.arange(5), 39)
    return x, index, rng.random(index.shape, np.float32)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("line", [1, 15, 16, 17, 31, 96, 1000])
def test_every_way_gives_the_same_bits(line: int, kind: type) -> None:
    if not machine_code.usable():
        pytest.skip("this LLVM is too old for the kernels' code")
    x, index, weight = drawn(line, kind)
    want = in_numpy(x, index, weight)
    exact = np.array([sum(float(w) * x[i].astype(float) for i, w in zip(*pair)) for pair in zip(index, weight)])
    np.testing.assert_allclose(want, exact, rtol=1e-6)
    got = weighted_rows.weighted_rows(x, index, weight)
    assert got.dtype == np.float32
    assert np.array_equal(got, want)
    sums = np.empty_like(want)
    kernel = cpu_kernels.of_bytes if kind is np.uint8 else cpu_kernels.of_floats
    flat = (one.ravel() for one in (x, sums, index, weight))
    by_numba(kernel, (*flat, index.shape[1], line))(0, len(index))
    assert np.array_equal(sums, want)


def test_without_llvm_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "usable", lambda: False)
    monkeypatch.setattr(weighted_rows, "_compiled", None)
    x, index, weight = drawn(20, np.uint8)
    assert np.array_equal(weighted_rows.weighted_rows(x, index, weight), in_numpy(x, index, weight))


FIRST_USE = """
import threading
import numpy as np
from ascseg_cli.kernels.weighted_rows import weighted_rows
start, done = threading.Barrier(8), []
def use():
    start.wait()
    done.append(weighted_rows(np.ones((4, 40), np.uint8), np.zeros((2, 3), int), np.ones((2, 3), np.float32)))
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(done) == 8 and all((one == 3).all() for one in done)
"""


def test_many_threads_may_be_the_first() -> None:
    """LLVM, made ready by two threads at once, ends the process."""
    for _ in range(4):
        run = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr) == (0, "")
