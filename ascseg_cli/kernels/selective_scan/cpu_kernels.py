"""The selective scan's loops in numba: sixteen states in a vector, a chunk of tokens at a time.

A task is a row of the batch and some of its channels. What each token needs once (Δ, the gate) is computed for a
whole chunk; then each channel's states run through the chunk in registers. Backward starts each chunk from the
states that forward kept there, so no tensor (b, l, e, n) ever exists.

`t, ts` is a tensor's memory and its strides; all other arrays are flat.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import CHUNK, WIDTH
from ascseg_cli.kernels.elementary import exp, sigmoid, softplus, without_denormals
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import fma, load, part, row_totals, spread, spread_at, store

# rows of the scratch `line`, one number a token
X, RAW, STEP, DRIVE, OUT, GATE, GY, G, BY_DRIVE, BY_STEP = (row * CHUNK for row in range(10))
# blocks of the scratch `work`, one vector a token
PRODUCTS, TO_DRIVE, TO_STEP, DECAYS, STATES = (block * CHUNK * WIDTH for block in range(5))


@part
def channel(t, ts, row, start, c, count, line, at):
    """One channel's numbers of a chunk; zeros after its end."""
    source, done = row * ts[0] + start * ts[1] + c * ts[2], 0
    if ts[1] == 1:
        done = count // WIDTH * WIDTH
        for k in range(0, done, WIDTH):
            store(line, at + k, load(t, source + k))
    for k in range(done, count):
        line[at + k] = t[source + k * ts[1]]
    for k in range(count, CHUNK):
        line[at + k] = np.float32(0.0)


@part
def _load_vectors(t, ts, row, start, count, n, scratch):
    """The vectors of B or C of a chunk, (tile, token, lane)."""
    source = row * ts[0] + start * ts[1]
    for k in range(count):
        for tile in range(0, n, WIDTH):
            store(scratch, tile * CHUNK + k * WIDTH, load(t, source + k * ts[1] + tile))


@part
def _store_vectors(scratch, target, at, count, n):
    """`_load_vectors` the other way round."""
    for k in range(count):
        for tile in range(0, n, WIDTH):
            store(target, at + k * n + tile, load(scratch, tile * CHUNK + k * WIDTH))


@part
def steps(line, bias, D):
    """Δ = softplus(delta + bias), Δ x, and D x, the first part of y."""
    for k in range(0, CHUNK, WIDTH):
        x, step = load(line, X + k), softplus(load(line, RAW + k) + bias)
        store(line, STEP + k, step)
        store(line, DRIVE + k, step * x)
        store(line, OUT + k, x * D)


@part
def sum_up(work, products, line, at):
    """Add each token's sum over a vector to its number."""
    for k in range(0, CHUNK, WIDTH):
        store(line, at + k, load(line, at + k) + row_totals(work, products + k * WIDTH))


@part
def advance(state, a, line, B, C, tile, count, work):
    """Run one vector of states through a chunk and add C · s to y."""
    for k in range(count):
        at = tile * CHUNK + k * WIDTH
        state = without_denormals(
            fma(exp(a * spread_at(line, STEP + k)), state, load(B, at) * spread_at(line, DRIVE + k))
        )
        store(work, PRODUCTS + k * WIDTH, state * load(C, at))
    sum_up(work, PRODUCTS, line, OUT)
    return state


@part
def gate(line):
    for k in range(0, CHUNK, WIDTH):
        z = load(line, GATE + k)
        store(line, OUT + k, load(line, OUT + k) * z * sigmoid(z))


@compiled
def scan(first, last, x, xs, delta, ds, z, zs, gated, A, B, Bs, C, Cs, D, bias, y, carries, keep, l, e, n, blocks):
    line, work = np.zeros(GY, np.float32), np.zeros(TO_DRIVE, np.float32)
    b_k, c_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
    chunks = (l + CHUNK - 1) // CHUNK
    for task in range(first, last):
        row, block = task // blocks, task % blocks
        begin, end = e * block // blocks, e * (block + 1) // blocks
        states = np.zeros((end - begin) * n, np.float32)
        for chunk in range(chunks):
            start = chunk * CHUNK
            count = min(CHUNK, l - start)
            _load_vectors(B, Bs, row, start, count, n, b_k)
            _load_vectors(C, Cs, row, start, count, n, c_k)
            for c in range(begin, end):
                channel(x, xs, row, start, c, count, line, X)
                channel(delta, ds, row, start, c, count, line, RAW)
                steps(line, bias[c], D[c])
                for tile in range(0, n, WIDTH):
                    state = load(states, (c - begin) * n + tile)
                    if keep:
                        store(carries, ((row * chunks + chunk) * e + c) * n + tile, state)
                    state = advance(state, load(A, c * n + tile), line, b_k, c_k, tile, count, work)
                    store(states, (c - begin) * n + tile, state)
                if gated:
                    channel(z, zs, row, start, c, count, line, GATE)
                    gate(line)
                for k in range(count):
                    y[(row * l + start + k) * e + c] = line[OUT + k]


@part
def ungate(line, gated):
    """Turn the gradient of y into that before the gate, and GY into the gate's slope times it."""
    for k in range(0, CHUNK, WIDTH):
        gy, z = load(line, GY + k), load(line, GATE + k)
        store(line, G + k, gy)
        store(line, BY_DRIVE + k, spread(0.0))
        store(line, BY_STEP + k, spread(0.0))
        if gated:
            s = sigmoid(z)
            store(line, G + k, gy * z * s)
            store(line, GY + k, gy * s * (z * (1.0 - s) + 1.0))


@part
def replay(state, a, line, B, C, tile, count, work):
    """`advance` again; leaves every decay, and every state from the one before the chunk on.

    What the chunk adds and what it inherits are kept apart: rounding then adds up over a chunk, not over the row.
    """
    store(work, STATES, state)
    local, survival = spread(0.0), spread(1.0)
    for k in range(count):
        at = tile * CHUNK + k * WIDTH
        decay, drive = exp(a * spread_at(line, STEP + k)), spread_at(line, DRIVE + k)
        local = without_denormals(fma(decay, local, load(B, at) * drive))
        survival = without_denormals(decay * survival)
        store(work, DECAYS + k * WIDTH, decay)
        here = fma(survival, state, local)
        store(work, STATES + (k + 1) * WIDTH, here)
        store(work, PRODUCTS + k * WIDTH, here * load(C, at))
    sum_up(work, PRODUCTS, line, OUT)


@part
def retreat(adjoint, A, line, B, C, tile, count, work, gB, gC, gA, at_A):
    """Run the adjoint of one vector of states, the loss's derivative by it, backward through a chunk."""
    by_A, of_eight = spread(0.0), spread(0.0)  # in two levels, as exact as torch's pairwise sum
    after, local, survival = adjoint, spread(0.0), spread(1.0)
    for k in range(count - 1, -1, -1):
        at, g = tile * CHUNK + k * WIDTH, spread_at(line, G + k)
        here = fma(load(C, at), g, adjoint)
        store(gC, at, fma(load(work, STATES + (k + 1) * WIDTH), g, load(gC, at)))
        store(gB, at, fma(here, spread_at(line, DRIVE + k), load(gB, at)))
        store(work, TO_DRIVE + k * WIDTH, here * load(B, at))
        decay = load(work, DECAYS + k * WIDTH)
        local = without_denormals(fma(load(C, at), g, local) * decay)
        survival = without_denormals(survival * decay)
        adjoint = fma(survival, after, local)
        by_exponent = adjoint * load(work, STATES + k * WIDTH)
        of_eight = fma(by_exponent, spread_at(line, STEP + k), of_eight)
        if k % 8 == 0:
            by_A, of_eight = by_A + of_eight, spread(0.0)
        store(work, TO_STEP + k * WIDTH, by_exponent * A)
    sum_up(work, TO_DRIVE, line, BY_DRIVE)
    sum_up(work, TO_STEP, line, BY_STEP)
    store(work, PRODUCTS, by_A)
    for lane in range(WIDTH):
        gA[at_A + lane] += work[PRODUCTS + lane]
    return adjoint


@part
def finish(line, bias, D):
    """The chunk's gradients of x, delta and z in place of X, STEP and GY; Δ's is still to be summed in BY_STEP."""
    for k in range(0, CHUNK, WIDTH):
        x, g, by_drive = load(line, X + k), load(line, G + k), load(line, BY_DRIVE + k)
        by_step = fma(by_drive, x, load(line, BY_STEP + k)) * sigmoid(load(line, RAW + k) + bias)
        store(line, BY_DRIVE + k, g * x)
        store(line, X + k, fma(by_drive, load(line, STEP + k), g * D))
        store(line, STEP + k, by_step)
        store(line, GY + k, load(line, GY + k) * load(line, OUT + k))


@part
def _write_out(line, count, at, stride, gx, gdelta, gz, gD, gbias, at_sum):
    by_D, by_bias = 0.0, 0.0
    for k in range(count):
        gx[at + k * stride] = line[X + k]
        gdelta[at + k * stride] = line[STEP + k]
        gz[at + k * stride] = line[GY + k]
        by_D += line[BY_DRIVE + k]
        by_bias += line[STEP + k]
    gD[at_sum] += by_D
    gbias[at_sum] += by_bias


@compiled
def scan_backward(
    first, last, x, xs, delta, ds, z, zs, gated, A, B, Bs, C, Cs, D, bias, carries, gy, ys,
    gx, gdelta, gz, gA, gB, gC, gD, gbias, l, e, n, blocks
):  # fmt: skip
    line, work = np.zeros(10 * CHUNK, np.float32), np.zeros(STATES + (CHUNK + 1) * WIDTH, np.float32)
    b_k, c_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
    chunks = (l + CHUNK - 1) // CHUNK
    for task in range(first, last):
        row, block = task // blocks, task % blocks
        begin, end = e * block // blocks, e * (block + 1) // blocks
        adjoints = np.zeros((end - begin) * n, np.float32)
        for chunk in range(chunks - 1, -1, -1):
            start = chunk * CHUNK
            count = min(CHUNK, l - start)
            _load_vectors(B, Bs, row, start, count, n, b_k)
            _load_vectors(C, Cs, row, start, count, n, c_k)
            gb_k, gc_k = np.zeros(CHUNK * n, np.float32), np.zeros(CHUNK * n, np.float32)
            for c in range(begin, end):
                for t, ts, at in ((x, xs, X), (delta, ds, RAW), (z, zs, GATE), (gy, ys, GY)):
                    channel(t, ts, row, start, c, count, line, at)
                steps(line, bias[c], D[c])
                ungate(line, gated)
                for tile in range(0, n, WIDTH):
                    a, at, at_A = load(A, c * n + tile), (c - begin) * n + tile, (row * e + c) * n + tile
                    state = load(carries, ((row * chunks + chunk) * e + c) * n + tile)
                    replay(state, a, line, b_k, c_k, tile, count, work)
                    adjoint = load(adjoints, at)
                    adjoint = retreat(adjoint, a, line, b_k, c_k, tile, count, work, gb_k, gc_k, gA, at_A)
                    store(adjoints, at, adjoint)
                finish(line, bias[c], D[c])
                _write_out(line, count, (row * l + start) * e + c, e, gx, gdelta, gz, gD, gbias, row * e + c)
            _store_vectors(gb_k, gB, ((row * blocks + block) * l + start) * n, count, n)
            _store_vectors(gc_k, gC, ((row * blocks + block) * l + start) * n, count, n)
