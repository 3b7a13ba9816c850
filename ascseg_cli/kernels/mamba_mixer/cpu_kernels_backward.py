"""The gradient of Mamba in numba: chunk by chunk from the last, each computed again from the states it began with.

Gradients of weights are summed within a chunk in float32 and over chunks in float64. Past the last token all
gradients are zero, so sums may run over whole chunks.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import CHUNK, WIDTH
from ascseg_cli.kernels.elementary import sigmoid
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import fma, load, part, row_totals, spread, spread_at, store, total
from ascseg_cli.kernels.mamba_mixer.cpu_kernels import (
    CONV,
    CONV_BIAS,
    DT_BIAS,
    DT_PROJ,
    IN_PROJ,
    LOW,
    OUT_PROJ,
    PITCH,
    A,
    B,
    C,
    D,
    convolve,
    copy,
    project,
    silu,
    states_vectors,
    write_chunk,
)
from ascseg_cli.kernels.selective_scan.cpu_kernels import (
    BY_DRIVE,
    GATE,
    GY,
    OUT,
    PRODUCTS,
    RAW,
    STATES,
    STEP,
    TO_DRIVE,
    TO_STEP,
    X,
    channel,
    finish,
    replay,
    retreat,
    steps,
    ungate,
)


@part
def _history(t, ts, row, start, d, e, weights, at, raw):
    """What the causal convolution sees of the sixteen tokens before the chunk."""
    for c in range(e):
        store(raw, c * PITCH, spread(0.0))
    if start:
        for c in range(e):
            for k in range(WIDTH - 3, WIDTH):
                v = np.float32(0.0)
                for i in range(d):
                    v += t[row * ts[0] + (start - WIDTH + k) * ts[1] + i * ts[2]] * weights[at + c * d + i]
                raw[c * PITCH + k] = v


@part
def _outer(g, rows, x, inner, pitch, offset, sums, at):
    """sums[o, i] += Σ over the chunk of g[o] · x[i]."""
    for o in range(rows):
        for i in range(inner):
            v, place = spread(0.0), i * pitch + offset
            for k in range(0, CHUNK, WIDTH):
                v = fma(load(g, o * CHUNK + k), load(x, place + k), v)
            sums[at + o * inner + i] += total(v)


@part
def _sum(t, place, sums, at):
    v = spread(0.0)
    for k in range(0, CHUNK, WIDTH):
        v = v + load(t, place + k)
    sums[at] += total(v)


@part
def _back_through_states(g, x, weights, at, e, n, count, sums, gx, work):
    """The gradients of B's or C's projection, and what they add to that of x; g is (tile, token, lane)."""
    for tile in range(0, n, WIDTH):
        for c in range(e):
            weight, even, odd = load(weights, at + c * n + tile), spread(0.0), spread(0.0)
            for k in range(0, CHUNK, 2):
                place = tile * CHUNK + k * WIDTH
                v, following = load(g, place), load(g, place + WIDTH)
                store(work, k * WIDTH, v * weight)
                store(work, (k + 1) * WIDTH, following * weight)
                even = fma(v, spread_at(x, c * CHUNK + k), even)
                odd = fma(following, spread_at(x, c * CHUNK + k + 1), odd)
            for k in range(0, CHUNK, WIDTH):
                place = c * CHUNK + k
                store(gx, place, load(gx, place) + row_totals(work, k * WIDTH))
            store(work, 0, even + odd)
            for lane in range(WIDTH):
                sums[at + c * n + tile + lane] += work[lane]


@part
def _back_through_convolution(a, gx, raw, weights, conv, bias, e, ga, graw, sums):
    """From the gradient of SiLU's result to that before the convolution, and those of its weights.

    ga  (e, PITCH)  the chunk's, then that of the first tokens of the chunk after it
    """
    for c in range(e):
        for k in range(0, CHUNK, WIDTH):
            v = load(a, c * CHUNK + k)
            s = sigmoid(v)
            store(ga, c * PITCH + k, load(gx, c * CHUNK + k) * s * fma(v, spread(1.0) - s, spread(1.0)))
        for k in range(0, CHUNK, WIDTH):
            v = spread(0.0)
            for tap in range(4):
                v = fma(load(ga, c * PITCH + k + 3 - tap), spread_at(weights, conv + 4 * c + tap), v)
            store(graw, c * CHUNK + k, v)
        for tap in range(4):
            v = spread(0.0)
            for k in range(0, CHUNK, WIDTH):
                v = fma(load(ga, c * PITCH + k), load(raw, c * PITCH + WIDTH - 3 + tap + k), v)
            sums[conv + 4 * c + tap] += total(v)
        _sum(ga, c * PITCH, sums, bias + c)
        store(ga, c * PITCH + CHUNK, load(ga, c * PITCH))


@part
def _gated(line, outs, place):
    for k in range(0, CHUNK, WIDTH):
        z = load(line, GATE + k)
        store(outs, place + k, load(line, OUT + k) * z * sigmoid(z))


@part
def _clear_rest(count, work):
    """Nothing of an earlier chunk past the last token."""
    for k in range(count * WIDTH, CHUNK * WIDTH, WIDTH):
        store(work, PRODUCTS + k, spread(0.0))
        store(work, TO_DRIVE + k, spread(0.0))
        store(work, TO_STEP + k, spread(0.0))


@compiled
def mix_backward(first, last, t, ts, gy, gs, weights, at, carries, gt, gts, sums, l, d, e, n, r):
    line, work = np.zeros(10 * CHUNK, np.float32), np.zeros(STATES + (CHUNK + 1) * WIDTH, np.float32)
    b_k, c_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
    tokens, gtokens = np.zeros(d * CHUNK, np.float32), np.zeros(d * CHUNK, np.float32)
    low, glow = np.zeros(r * CHUNK, np.float32), np.zeros(r * CHUNK, np.float32)
    a, x, z, outs, gouts, gx, gz, gstep, graw = np.zeros((9, e * CHUNK), np.float32)
    raw, chunks = np.zeros(e * PITCH, np.float32), (l + CHUNK - 1) // CHUNK
    for row in range(first, last):
        adjoints, ga = np.zeros(e * n, np.float32), np.zeros(e * PITCH, np.float32)
        by = sums[row * len(weights) : (row + 1) * len(weights)]
        for chunk in range(chunks - 1, -1, -1):
            start = chunk * CHUNK
            count = min(CHUNK, l - start)
            for c in range(d):
                channel(t, ts, row, start, c, count, tokens, c * CHUNK)
                channel(gy, gs, row, start, c, count, gtokens, c * CHUNK)
            _history(t, ts, row, start, d, e, weights, at[IN_PROJ], raw)
            project(weights, at[IN_PROJ], d, 1, e, d, tokens, raw, WIDTH, PITCH, False)
            project(weights, at[IN_PROJ] + e * d, d, 1, e, d, tokens, z, 0, CHUNK, False)
            convolve(raw, weights, at[CONV], at[CONV_BIAS], e, a)
            silu(a, e, x)
            project(weights, at[LOW], e, 1, r, e, x, low, 0, CHUNK, False)
            states_vectors(x, weights, at[B], e, n, count, b_k)
            states_vectors(x, weights, at[C], e, n, count, c_k)
            gb_k, gc_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
            _clear_rest(count, work)
            project(weights, at[OUT_PROJ], 1, e, e, d, gtokens, gouts, 0, CHUNK, False)
            for c in range(e):
                place, bias, direct = c * CHUNK, weights[at[DT_BIAS] + c], weights[at[D] + c]
                copy(x, place, line, X)
                copy(z, place, line, GATE)
                copy(gouts, place, line, GY)
                project(weights, at[DT_PROJ] + c * r, r, 1, 1, r, low, line, RAW, CHUNK, False)
                steps(line, bias, direct)
                ungate(line, True)
                for tile in range(0, n, WIDTH):
                    at_A = at[A] + c * n + tile
                    decay, adjoint = load(weights, at_A), load(adjoints, c * n + tile)
                    state = load(carries, ((row * chunks + chunk) * e + c) * n + tile)
                    replay(state, decay, line, b_k, c_k, tile, count, work)
                    adjoint = retreat(adjoint, decay, line, b_k, c_k, tile, count, work, gb_k, gc_k, by, at_A)
                    store(adjoints, c * n + tile, adjoint)
                _gated(line, outs, place)
                finish(line, bias, direct)
                _sum(line, BY_DRIVE, by, at[D] + c)
                _sum(line, STEP, by, at[DT_BIAS] + c)
                copy(line, X, gx, place)
                copy(line, STEP, gstep, place)
                copy(line, GY, gz, place)
            _outer(gtokens, d, outs, e, CHUNK, 0, by, at[OUT_PROJ])
            _outer(gstep, e, low, r, CHUNK, 0, by, at[DT_PROJ])
            project(weights, at[DT_PROJ], 1, r, r, e, gstep, glow, 0, CHUNK, False)
            _outer(glow, r, x, e, CHUNK, 0, by, at[LOW])
            project(weights, at[LOW], 1, e, e, r, glow, gx, 0, CHUNK, True)
            _back_through_states(gb_k, x, weights, at[B], e, n, count, by, gx, work)
            _back_through_states(gc_k, x, weights, at[C], e, n, count, by, gx, work)
            _back_through_convolution(a, gx, raw, weights, at[CONV], at[CONV_BIAS], e, ga, graw, by)
            _outer(graw, e, tokens, d, CHUNK, 0, by, at[IN_PROJ])
            _outer(gz, e, tokens, d, CHUNK, 0, by, at[IN_PROJ] + e * d)
            project(weights, at[IN_PROJ], 1, d, d, e, graw, gtokens, 0, CHUNK, False)
            project(weights, at[IN_PROJ] + e * d, 1, d, d, e, gz, gtokens, 0, CHUNK, True)
            write_chunk(gtokens, gt, gts, row, start, count, 0, d)
