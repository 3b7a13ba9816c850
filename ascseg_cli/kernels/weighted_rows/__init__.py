"""Weighted sums of rows, compiled, or in NumPy where that can't be; the same to the last bit. Loads no torch."""

from __future__ import annotations

import numpy as np

from ascseg_cli.kernels import machine_code
from ascseg_cli.kernels.kernel import Kernel

of_bytes = Kernel("weighted_rows.cpu_kernels", "of_bytes")
of_floats = Kernel("weighted_rows.cpu_kernels", "of_floats")
_BLOCK = 1 << 19  # numbers of the source that one block of rows may look at in NumPy: stays in the cache


def weighted_rows(x: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Σ_k weight[i, k] · x[index[i, k]] for each i, added in the order of k.

    x       (n, line) uint8 or float32
    index   (m, k) int64, rows of x, rising along both axes; weight (m, k) float32
    returns (m, line) float32
    """
    if machine_code.usable():
        return _compiled(x, index, weight)
    return in_numpy(x, index, weight)


def _compiled(x: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    (rows, taps), line = index.shape, x.shape[1]
    sums = np.empty((rows, line), np.float32)
    flat = (np.ascontiguousarray(one).ravel() for one in (x, sums, index, weight))
    kernel = of_bytes if x.dtype == np.uint8 else of_floats
    kernel.shares(*flat, taps, line)(0, rows)
    return sums


def in_numpy(x: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """As `weighted_rows`, some rows at a time, in four to eight times the time."""
    m = len(index)
    out = np.empty((m, x.shape[1]), np.float32)
    rows = max(1, min(_BLOCK // (8 * x.shape[1]), _BLOCK * m // x.size))
    product = np.empty((rows, x.shape[1]), np.float32)
    for start in range(0, m, rows):
        block = slice(start, min(start + rows, m))
        first, last = index[block][0, 0], index[block][-1, -1]
        source = x[first : last + 1].astype(np.float32)
        total, term = out[block], product[: block.stop - start]
        np.multiply(source[index[block, 0] - first], weight[block, :1], out=total)
        for k in range(1, index.shape[1]):
            np.take(source, index[block, k] - first, axis=0, out=term, mode="clip")
            term *= weight[block, k : k + 1]
            total += term
    return out
