"""Mamba's loops in numba: a chunk of tokens goes through all of it before the next, in the first-level cache.

B and C, sixteen numbers a token, are never stored for more than a chunk: as tensors they are most of the traffic.
What is computed for each token runs with sixteen tokens in a vector, the scan with sixteen states.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.compiled import compiled
from ascseg_cli.kernels.elementary import sigmoid
from ascseg_cli.kernels.lanes import WIDTH, fma, load, part, spread, store
from ascseg_cli.kernels.selective_scan.cpu_kernels import (
    CHUNK,
    GATE,
    GY,
    OUT,
    RAW,
    TO_DRIVE,
    X,
    advance,
    channel,
    gate,
    steps,
)

PITCH = (
    WIDTH + CHUNK
)  # of a row before the causal convolution: the last tokens of the chunk before, then the chunk


@part
def _project(weight, at, rows, inner, source, target, to, pitch, offset):
    """Rows of `target`, from `to` on, are those of `weight`, from `at` on, times `source`."""
    for o in range(rows):
        for k in range(0, CHUNK, WIDTH):
            a = spread(0.0)
            for i in range(inner):
                a = fma(load(source, i * CHUNK + k), spread(weight[(at + o) * inner + i]), a)
            store(target, to + o * pitch + offset + k, a)


@part
def _convolve(raw, conv, bias, e, x):
    """SiLU of the causal convolution; keeps the chunk's last tokens for the next."""
    for c in range(e):
        for k in range(0, CHUNK, WIDTH):
            a, first = spread(bias[c]), c * PITCH + WIDTH + k - 3
            for tap in range(4):
                a = fma(load(raw, first + tap), spread(conv[c * 4 + tap]), a)
            store(x, c * CHUNK + k, a * sigmoid(a))
        store(raw, c * PITCH, load(raw, c * PITCH + CHUNK))


@part
def _states_vectors(x, weight, e, n, count, target):
    """B or C of each token, (tile, token, lane); weight is (e, n)."""
    for tile in range(0, n, WIDTH):
        for k in range(count):
            a = spread(0.0)
            for c in range(e):
                a = fma(load(weight, c * n + tile), spread(x[c * CHUNK + k]), a)
            store(target, tile * CHUNK + k * WIDTH, a)


@part
def _copy(source, at, target, to):
    for k in range(0, CHUNK, WIDTH):
        store(target, to + k, load(source, at + k))


@compiled
def mix(
    first, last, t, ts, in_proj, conv, conv_bias, low_proj, dt_proj, dt_bias, A, B_proj, C_proj, D, out_proj,
    y, ys, l, d, e, n, r
):  # fmt: skip
    line, work = np.zeros(GY, np.float32), np.zeros(TO_DRIVE, np.float32)
    b_k, c_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
    tokens, low = np.zeros(d * CHUNK, np.float32), np.zeros(r * CHUNK, np.float32)
    x, z, outs = np.zeros(e * CHUNK, np.float32), np.zeros(e * CHUNK, np.float32), np.zeros(e * CHUNK, np.float32)
    for row in range(first, last):
        raw, states = np.zeros(e * PITCH, np.float32), np.zeros(e * n, np.float32)
        for start in range(0, l, CHUNK):
            count = min(CHUNK, l - start)
            for c in range(d):
                channel(t, ts, row, start, c, count, tokens, c * CHUNK)
            _project(in_proj, 0, e, d, tokens, raw, 0, PITCH, WIDTH)
            _project(in_proj, e, e, d, tokens, z, 0, CHUNK, 0)
            _convolve(raw, conv, conv_bias, e, x)
            _project(low_proj, 0, r, e, x, low, 0, CHUNK, 0)
            _states_vectors(x, B_proj, e, n, count, b_k)
            _states_vectors(x, C_proj, e, n, count, c_k)
            for c in range(e):
                _copy(x, c * CHUNK, line, X)
                _copy(z, c * CHUNK, line, GATE)
                _project(dt_proj, c, 1, r, low, line, RAW, CHUNK, 0)
                steps(line, dt_bias[c], D[c])
                for tile in range(0, n, WIDTH):
                    state = load(states, c * n + tile)
                    state = advance(state, load(A, c * n + tile), line, b_k, c_k, tile, count, work)
                    store(states, c * n + tile, state)
                gate(line)
                _copy(line, OUT, outs, c * CHUNK)
            _project(out_proj, 0, d, e, outs, tokens, 0, CHUNK, 0)
            for c in range(d):
                for k in range(count):
                    y[row * ys[0] + (start + k) * ys[1] + c * ys[2]] = tokens[c * CHUNK + k]
