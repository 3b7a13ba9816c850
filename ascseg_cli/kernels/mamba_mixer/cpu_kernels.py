"""Mamba's loops in numba: a chunk of tokens goes through all of it before the next, in the first-level cache.

B and C, sixteen numbers a token, are never stored for more than a chunk: as tensors they are most of the traffic.
What is computed for each token runs with sixteen tokens in a vector, the scan with sixteen states.

All weights are one flat array, and `at` says where each begins: fewer arguments, which take long to compile.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import CHUNK, WIDTH
from ascseg_cli.kernels.elementary import sigmoid
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import fma, load, part, spread, spread_at, store
from ascseg_cli.kernels.selective_scan.cpu_kernels import (
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

# where the weights begin: (2e, d), (e, 4), (e,), (r, e), (e, r), (e,), then A, B and C (e, n), (e,), (d, e)
IN_PROJ, CONV, CONV_BIAS, LOW, DT_PROJ, DT_BIAS, A, B, C, D, OUT_PROJ = range(11)

PITCH = WIDTH + CHUNK  # of a row before the causal convolution: the chunk before's last tokens, then the chunk


@part
def project(weights, at, row_step, step, rows, inner, source, target, to, pitch, add):
    """Rows of `target` are those of a matrix times `source`, or that more; a chunk is four vectors."""
    for o in range(rows):
        place = to + o * pitch
        a = b = c = e = spread(0.0)
        if add:
            a, b = load(target, place), load(target, place + WIDTH)
            c, e = load(target, place + 2 * WIDTH), load(target, place + 3 * WIDTH)
        for i in range(inner):
            weight, k = spread_at(weights, at + o * row_step + i * step), i * CHUNK
            a, b = fma(load(source, k), weight, a), fma(load(source, k + WIDTH), weight, b)
            c = fma(load(source, k + 2 * WIDTH), weight, c)
            e = fma(load(source, k + 3 * WIDTH), weight, e)
        store(target, place, a)
        store(target, place + WIDTH, b)
        store(target, place + 2 * WIDTH, c)
        store(target, place + 3 * WIDTH, e)


@part
def convolve(raw, weights, conv, bias, e, a):
    """The causal convolution, before its activation."""
    for c in range(e):
        for k in range(0, CHUNK, WIDTH):
            v, first = spread_at(weights, bias + c), c * PITCH + WIDTH + k - 3
            for tap in range(4):
                v = fma(load(raw, first + tap), spread_at(weights, conv + c * 4 + tap), v)
            store(a, c * CHUNK + k, v)


@part
def silu(a, e, x):
    for k in range(0, e * CHUNK, WIDTH):
        v = load(a, k)
        store(x, k, v * sigmoid(v))


@part
def states_vectors(x, weights, at, e, n, count, target):
    """B or C of each token, (tile, token, lane); its projection is (e, n)."""
    for tile in range(0, n, WIDTH):
        for k in range(count):
            a = spread(0.0)
            for c in range(e):
                a = fma(load(weights, at + c * n + tile), spread_at(x, c * CHUNK + k), a)
            store(target, tile * CHUNK + k * WIDTH, a)


@part
def copy(source, at, target, to):
    for k in range(0, CHUNK, WIDTH):
        store(target, to + k, load(source, at + k))


@part
def write_chunk(source, t, ts, row, start, count, begin, end):
    """The channels begin … end - 1 of a chunk into a tensor (b, l, channels)."""
    for c in range(begin, end):
        place, done = row * ts[0] + start * ts[1] + c * ts[2], 0
        if ts[1] == 1:
            done = count // WIDTH * WIDTH
            for k in range(0, done, WIDTH):
                store(t, place + k, load(source, c * CHUNK + k))
        for k in range(done, count):
            t[place + k * ts[1]] = source[c * CHUNK + k]


@compiled
def mix(first, last, t, ts, weights, at, y, ys, wide, ws, carries, keep, l, d, e, n, r, parts):
    """The tasks first … last - 1, one of `parts` shares of a row's inner channels each.

    Where there are several, they leave the inner channels in `wide` (b, l, e), for `leave` to project.
    """
    line, work = np.zeros(GY, np.float32), np.zeros(TO_DRIVE, np.float32)
    b_k, c_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
    tokens, low = np.zeros(d * CHUNK, np.float32), np.zeros(r * CHUNK, np.float32)
    x, z, outs = np.zeros(e * CHUNK, np.float32), np.zeros(e * CHUNK, np.float32), np.zeros(e * CHUNK, np.float32)
    chunks = (l + CHUNK - 1) // CHUNK
    for task in range(first, last):
        row, share = task // parts, task % parts
        begin, end = e * share // parts, e * (share + 1) // parts
        raw, states = np.zeros(e * PITCH, np.float32), np.zeros(e * n, np.float32)
        for chunk in range(chunks):
            start = chunk * CHUNK
            count = min(CHUNK, l - start)
            for c in range(d):
                channel(t, ts, row, start, c, count, tokens, c * CHUNK)
            project(weights, at[IN_PROJ], d, 1, e, d, tokens, raw, WIDTH, PITCH, False)
            project(weights, at[IN_PROJ] + e * d, d, 1, e, d, tokens, z, 0, CHUNK, False)
            convolve(raw, weights, at[CONV], at[CONV_BIAS], e, x)
            silu(x, e, x)
            for c in range(e):
                store(raw, c * PITCH, load(raw, c * PITCH + CHUNK))
            project(weights, at[LOW], e, 1, r, e, x, low, 0, CHUNK, False)
            states_vectors(x, weights, at[B], e, n, count, b_k)
            states_vectors(x, weights, at[C], e, n, count, c_k)
            for c in range(begin, end):
                copy(x, c * CHUNK, line, X)
                copy(z, c * CHUNK, line, GATE)
                project(weights, at[DT_PROJ] + c * r, r, 1, 1, r, low, line, RAW, CHUNK, False)
                steps(line, weights[at[DT_BIAS] + c], weights[at[D] + c])
                for tile in range(0, n, WIDTH):
                    state = load(states, c * n + tile)
                    if keep:
                        store(carries, ((row * chunks + chunk) * e + c) * n + tile, state)
                    state = advance(state, load(weights, at[A] + c * n + tile), line, b_k, c_k, tile, count, work)
                    store(states, c * n + tile, state)
                gate(line)
                copy(line, OUT, outs, c * CHUNK)
            if parts == 1:
                project(weights, at[OUT_PROJ], e, 1, d, e, outs, tokens, 0, CHUNK, False)
                write_chunk(tokens, y, ys, row, start, count, 0, d)
            else:
                write_chunk(outs, wide, ws, row, start, count, begin, end)


@compiled
def leave(first, last, wide, ws, weights, at, y, ys, l, d, e):
    """out_proj of the chunks first … last - 1 of all rows."""
    outs, tokens = np.zeros(e * CHUNK, np.float32), np.zeros(d * CHUNK, np.float32)
    chunks = (l + CHUNK - 1) // CHUNK
    for task in range(first, last):
        row, start = task // chunks, task % chunks * CHUNK
        count = min(CHUNK, l - start)
        for c in range(e):
            channel(wide, ws, row, start, c, count, outs, c * CHUNK)
        project(weights, at[OUT_PROJ], e, 1, d, e, outs, tokens, 0, CHUNK, False)
        write_chunk(tokens, y, ys, row, start, count, 0, d)
