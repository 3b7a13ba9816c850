"""The selective scan as Triton kernels, parallel over chunks of the sequence.

Forward: `chunk_ends` scans every chunk from a zero state, `link_chunks` carries the states from chunk to chunk,
`replay` scans again from the right states and writes y. Backward: `adjoint_ends` and `link_chunks` do the same for
the adjoint, from the last token to the first; `gradients` then recomputes each chunk's states and walks back.

A program is one warp with a tile (e, chunks, n) in registers: channels lie in neighbouring lanes, and what is left
of the 32 lanes goes to chunks and states. Everything is float32; decays are multiplied, never divided by. Sums over
channels stay inside a program, sums over tokens go through one partial result a program: nothing is atomic, so
gradients are the same to the bit in every run.

Loads are never masked along tokens and channels: indices are clamped, and a dead token has Δ = 0 and dy = 0.
Strides aren't specialised, so that the compiler sees no contiguity and keeps this tile layout for every load.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
_LOG2E_LOW = tl.constexpr(1.9259629911266175e-08)  # log2(e) less its float32 value
_LN2 = tl.constexpr(0.6931471805599453)

_PLAIN = [f"{name}{part}" for name in ("x", "delta", "z", "A", "B", "C", "dy", "dB") for part in ("", "_b", "_l", "_s")]
_PLAIN += ["y", "D", "bias", "ends", "totals", "carries", "adjoints", "l", "e", "n", "chunks", "groups"]
_PLAIN += ["works", "length", "rows"]


@triton.jit
def _exp_minus(v):
    """exp(-v) for v >= 0, to about 2 units in the last place: the rounding of v · log2(e) is made good."""
    v = tl.minimum(v, 100.0)
    t = v * _LOG2E
    lost = tl.fma(v, _LOG2E, -t) + v * _LOG2E_LOW
    p = tl.exp2(-t)
    return p - p * (lost * _LN2)


@triton.jit
def _softplus(v):
    """softplus(v) and its slope.

    log(1 + u) as u + u² f(u), which keeps its relative accuracy for tiny u; f is a polynomial of degree 8, fitted at
    Chebyshev nodes of 0..1, relative error of the sum 3e-8.
    """
    u = _exp_minus(tl.abs(v))
    f = -0.06751181 + u * (0.025682786 + u * -0.004579766)
    f = 0.1986211 + u * (-0.15878385 + u * (0.11626528 + u * f))
    f = -0.5 + u * (0.33332893 + u * (-0.24987552 + u * f))
    return tl.where(v < 0, 0.0, v) + (u + u * (u * f)), tl.where(v < 0, u, 1.0) / (1.0 + u)


@triton.jit
def _sigmoid(v):
    u = _exp_minus(tl.abs(v))
    return tl.where(v < 0, u, 1.0) / (1.0 + u)


@triton.jit
def _states(pointer, live, MASKED: tl.constexpr):
    """A load over the tile's states; only an n that is no power of two needs a mask."""
    if MASKED:
        return tl.load(pointer, mask=live, other=0.0)
    return tl.load(pointer)


@triton.jit
def _tile(block, e, n, N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr):
    """channel (e, 1, 1), slot (1, chunks, 1), state (1, 1, n), and which of (e, 1, n) exist."""
    channel = block * E + tl.arange(0, E)[:, None, None]
    slot = tl.arange(0, CH)[None, :, None]
    state = tl.arange(0, N)[None, None, :]
    return channel, slot, state, (channel < e) & (state < n)


@triton.jit
def _token(first, k, l, WIDE: tl.constexpr):
    """The token of step k in each chunk, clamped, and whether it exists."""
    token = first + k
    live = token < l
    token = tl.minimum(token, l - 1)
    return (token.to(tl.int64) if WIDE else token), live


@triton.jit
def _at_chunk(pointer, row, chunk, chunks, column, size, live):
    """State tiles kept for each chunk as (b, chunks, n, e); zero where the chunk doesn't exist."""
    offset = (row * chunks + chunk).to(tl.int64) * size + column
    return tl.load(pointer + offset, mask=live & (chunk >= 0) & (chunk < chunks), other=0.0)


@triton.jit(do_not_specialize=_PLAIN)
def chunk_ends(
    x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, B, B_b, B_l, B_s, A, A_b, A_s, bias, ends, totals,
    l, e, n, chunks, groups, length,
    HAS_BIAS: tl.constexpr, N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """ends (b, chunks, n, e): each chunk's last state when it starts at zero; totals (b, chunks, e): its ΣΔ."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = _tile(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = _states(A + index * A_b + state * A_s, known, MASKED) * _LOG2E
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    x += row * x_b + index * x_s
    delta += row * delta_b + index * delta_s
    B += row * B_b + state * B_s + 0 * channel
    s = tl.zeros([E, CH, N], tl.float32)
    total = tl.zeros([E, CH, 1], tl.float32)
    token, live = _token(chunk * length, 0, l, WIDE)
    raw, value, b = tl.load(delta + token * delta_l), tl.load(x + token * x_l), _states(B + token * B_l, known, MASKED)
    for k in range(length):
        later, later_live = _token(chunk * length, k + 1, l, WIDE)  # in flight while this step is computed
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next = _states(B + later * B_l, known, MASKED)
        step, _ = _softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = tl.exp2(step * rate) * s + (step * value) * b
        total += step
        raw, value, b, live = raw_next, value_next, b_next, later_live
    place = row * chunks + chunk
    tl.store(ends + place * (n * e) + state * e + channel, s, mask=real & (chunk < chunks))
    tl.store(totals + place * e + channel, total, mask=(channel < e) & (chunk < chunks))


@triton.jit
def _then(decay, state, decay_after, state_after):
    return decay * decay_after, state * decay_after + state_after


@triton.jit(do_not_specialize=_PLAIN)
def link_chunks(ends, totals, A, A_b, A_s, e, n, chunks, K: tl.constexpr, COLUMNS: tl.constexpr, BACKWARD: tl.constexpr):
    """ends (b, chunks, n, e), in place: from each chunk's own end to the state after it (before it, if BACKWARD)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    known = column < n * e
    channel = column % e
    rate = tl.load(A + channel * A_b + column // e * A_s, mask=known, other=0.0) * _LOG2E
    place = tl.arange(0, K)[:, None]
    carry = tl.zeros([1, COLUMNS], tl.float32)
    for first in range(0, chunks, K):
        chunk = first + place
        live = (chunk < chunks) & known
        if BACKWARD:
            chunk = chunks - 1 - chunk
        at = row * chunks + chunk
        decay = tl.exp2(tl.load(totals + at * e + channel, mask=live, other=0.0) * rate)
        end = tl.load(ends + at * (n * e) + column, mask=live, other=0.0)
        decay, state = tl.associative_scan((decay, end), 0, _then)
        state += decay * carry
        tl.store(ends + at * (n * e) + column, state, mask=live)
        carry = tl.sum(tl.where(place == K - 1, state, 0.0), axis=0)[None, :]


@triton.jit(do_not_specialize=_PLAIN)
def replay(
    x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s, B, B_b, B_l, B_s, C, C_b, C_l, C_s,
    A, A_b, A_s, D, bias, carries, y, l, e, n, chunks, groups, length,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """y (b, l, e), from the state after each chunk in carries (b, chunks, n, e)."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = _tile(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = _states(A + index * A_b + state * A_s, known, MASKED) * _LOG2E
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    skip = tl.load(D + index) if HAS_D else 0.0
    x += row * x_b + index * x_s
    delta += row * delta_b + index * delta_s
    z += row * z_b + index * z_s
    B += row * B_b + state * B_s + 0 * channel
    C += row * C_b + state * C_s + 0 * channel
    y += row * l * e + channel
    s = _at_chunk(carries, row, chunk - 1, chunks, state * e + channel, n * e, real)
    token, live = _token(chunk * length, 0, l, WIDE)
    raw, value, b = tl.load(delta + token * delta_l), tl.load(x + token * x_l), _states(B + token * B_l, known, MASKED)
    c = _states(C + token * C_l, known, MASKED)
    gate = tl.load(z + token * z_l)
    for k in range(length):
        later, later_live = _token(chunk * length, k + 1, l, WIDE)
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next, c_next = _states(B + later * B_l, known, MASKED), _states(C + later * C_l, known, MASKED)
        gate_next = tl.load(z + later * z_l) if HAS_Z else gate
        step, _ = _softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = tl.exp2(step * rate) * s + (step * value) * b
        out = tl.sum(s * c, axis=2)[:, :, None]
        if HAS_D:
            out += skip * value
        if HAS_Z:
            out *= gate * _sigmoid(gate)
        tl.store(y + token * e, out, mask=live & (channel < e))
        raw, value, b, c, gate = raw_next, value_next, b_next, c_next, gate_next
        token, live = later, later_live


@triton.jit(do_not_specialize=_PLAIN)
def adjoint_ends(
    dy, dy_b, dy_l, dy_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s, C, C_b, C_l, C_s,
    A, A_b, A_s, bias, ends, l, e, n, chunks, groups, length,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """ends (b, chunks, n, e): what each chunk alone hands to the state before it."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = _tile(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = _states(A + index * A_b + state * A_s, known, MASKED) * _LOG2E
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    dy += row * dy_b + index * dy_s
    delta += row * delta_b + index * delta_s
    z += row * z_b + index * z_s
    C += row * C_b + state * C_s + 0 * channel
    adjoint = tl.zeros([E, CH, N], tl.float32)
    token, live = _token(chunk * length, length - 1, l, WIDE)
    raw, slope, c = tl.load(delta + token * delta_l), tl.load(dy + token * dy_l), _states(C + token * C_l, known, MASKED)
    gate = tl.load(z + token * z_l)
    for k in range(length):
        later, later_live = _token(chunk * length, tl.maximum(length - 2 - k, 0), l, WIDE)
        raw_next, slope_next = tl.load(delta + later * delta_l), tl.load(dy + later * dy_l)
        c_next = _states(C + later * C_l, known, MASKED)
        gate_next = tl.load(z + later * z_l) if HAS_Z else gate
        step, _ = _softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        if HAS_Z:
            slope *= gate * _sigmoid(gate)
        adjoint = tl.exp2(step * rate) * (adjoint + tl.where(live, slope, 0.0) * c)
        raw, slope, c, gate, live = raw_next, slope_next, c_next, gate_next, later_live
    tl.store(ends + (row * chunks + chunk) * (n * e) + state * e + channel, adjoint, mask=real & (chunk < chunks))


@triton.jit
def _stash_states(
    stash, s, first, l, length, x, x_l, delta, delta_l, B, B_l, known, rate, shift,
    TILE: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Replay the chunk and keep the state before every step."""
    token, live = _token(first, 0, l, WIDE)
    raw, value, b = tl.load(delta + token * delta_l), tl.load(x + token * x_l), _states(B + token * B_l, known, MASKED)
    for k in range(length):
        tl.store(stash + k * TILE, s)
        later, later_live = _token(first, k + 1, l, WIDE)
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next = _states(B + later * B_l, known, MASKED)
        step, _ = _softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = tl.exp2(step * rate) * s + (step * value) * b
        raw, value, b, live = raw_next, value_next, b_next, later_live
    tl.debug_barrier()


@triton.jit
def _fetch(
    k, first, l, x, x_l, delta, delta_l, z, z_l, dy, dy_l, B, B_l, C, C_l, stash, known,
    HAS_Z: tl.constexpr, TILE: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Everything that step k of the walk back reads."""
    token, _ = _token(first, k, l, WIDE)
    value, raw, dout = tl.load(x + token * x_l), tl.load(delta + token * delta_l), tl.load(dy + token * dy_l)
    gate = tl.load(z + token * z_l) if HAS_Z else value
    b, c = _states(B + token * B_l, known, MASKED), _states(C + token * C_l, known, MASKED)
    return tl.load(stash + k * TILE), value, raw, gate, dout, b, c


@triton.jit
def _retreat(
    token, live, s, value, raw, gate, dout, b, c, adjoint, e, n, a, rate, shift, skip, channel, state,
    dx, ddelta, dz, dB, dC, dB_l, HAS_Z: tl.constexpr,
):  # fmt: skip
    """One step back: the gradients of a token from the state s before it and the adjoint handed to it."""
    there = live & (channel < e)
    step, slope = _softplus(raw + shift)
    step, dout = tl.where(live, step, 0.0), tl.where(there, dout, 0.0)
    decay = tl.exp2(step * rate)
    drive = step * value
    kept = decay * s
    s = kept + drive * b
    if HAS_Z:
        out = tl.sum(s * c, axis=2)[:, :, None] + skip * value
        sigmoid = _sigmoid(gate)
        tl.store(dz + token * e, dout * out * sigmoid * (1.0 + gate * (1.0 - sigmoid)), mask=there)
        dout *= gate * sigmoid
    adjoint += c * dout
    tl.store(dC + token * dB_l, tl.sum(dout * s, axis=0)[None, :, :], mask=live & (state < n))
    tl.store(dB + token * dB_l, tl.sum(adjoint * drive, axis=0)[None, :, :], mask=live & (state < n))
    pull = tl.sum(adjoint * b, axis=2)[:, :, None]
    turn = adjoint * kept
    dstep = tl.where(there, (tl.sum(turn * a, axis=2)[:, :, None] + value * pull) * slope, 0.0)
    tl.store(dx + token * e, step * pull + skip * dout, mask=there)
    tl.store(ddelta + token * e, dstep, mask=there)
    return decay * adjoint, turn * step, value * dout, dstep


@triton.jit(do_not_specialize=_PLAIN)
def gradients(
    dy, dy_b, dy_l, dy_s, x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s,
    B, B_b, B_l, B_s, C, C_b, C_l, C_s, A, A_b, A_s, D, bias, carries, adjoints,
    stash, dx, ddelta, dz, dB, dC, dB_b, dB_l, dB_s, dA, dD, dbias, l, e, n, chunks, groups, works, rows, length,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All gradients: dx, ddelta, dz (b, l, e); dB, dC (channel blocks, b, l, n); dA, dD, dbias one row a program.

    stash  (programs, channel blocks, length, tile)  the states of the chunks in work
    """
    TILE: tl.constexpr = N * CH * E
    channel, slot, state, real = _tile(tl.program_id(1), e, n, N, CH, E)
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    a = _states(A + index * A_b + state * A_s, known, MASKED)
    rate = a * _LOG2E
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    skip = tl.load(D + index) if HAS_D else tl.zeros([E, 1, 1], tl.float32)
    own = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    stash += own * length * TILE + (state * CH + slot) * E + tl.arange(0, E)[:, None, None]
    sum_A, sum_D = tl.zeros([E, CH, N], tl.float32), tl.zeros([E, CH, 1], tl.float32)
    sum_bias = tl.zeros([E, CH, 1], tl.float32)
    for work in range(tl.program_id(0), works, tl.num_programs(0)):
        row = (work // groups).to(tl.int64)
        chunk = work % groups * CH + slot
        first = chunk * length
        xs, deltas = x + row * x_b + index * x_s, delta + row * delta_b + index * delta_s
        zs, dys = z + row * z_b + index * z_s, dy + row * dy_b + index * dy_s
        Bs, Cs = B + row * B_b + state * B_s + 0 * channel, C + row * C_b + state * C_s + 0 * channel
        to, to_state = row * l * e + channel, (tl.program_id(1) * rows + row) * dB_b + state * dB_s
        s = _at_chunk(carries, row, chunk - 1, chunks, state * e + channel, n * e, real)
        _stash_states(stash, s, first, l, length, xs, x_l, deltas, delta_l, Bs, B_l, known, rate, shift, TILE, MASKED, WIDE)
        adjoint = _at_chunk(adjoints, row, chunk + 1, chunks, state * e + channel, n * e, real)
        s, value, raw, gate, dout, b, c = _fetch(
            length - 1, first, l, xs, x_l, deltas, delta_l, zs, z_l, dys, dy_l, Bs, B_l, Cs, C_l, stash, known,
            HAS_Z, TILE, MASKED, WIDE)  # fmt: skip
        for back in range(length):
            k = length - 1 - back
            s_next, value_next, raw_next, gate_next, dout_next, b_next, c_next = _fetch(
                tl.maximum(k - 1, 0), first, l, xs, x_l, deltas, delta_l, zs, z_l, dys, dy_l, Bs, B_l, Cs, C_l,
                stash, known, HAS_Z, TILE, MASKED, WIDE)  # fmt: skip
            token, live = _token(first, k, l, WIDE)
            adjoint, part_A, part_D, part_bias = _retreat(
                token, live, s, value, raw, gate, dout, b, c, adjoint, e, n, a, rate, shift, skip, channel, state,
                dx + to, ddelta + to, dz + to, dB + to_state, dC + to_state, dB_l, HAS_Z)  # fmt: skip
            sum_A, sum_D, sum_bias = sum_A + part_A, sum_D + part_D, sum_bias + part_bias
            s, value, raw, gate, dout, b, c = s_next, value_next, raw_next, gate_next, dout_next, b_next, c_next
        tl.debug_barrier()
    mine = tl.program_id(0)
    tl.store(dA + (mine * n + state) * e + channel, tl.sum(sum_A, axis=1)[:, None, :], mask=real)
    there = channel < e
    tl.store(dD + mine * e + channel, tl.sum(sum_D, axis=1)[:, None, :], mask=there)
    tl.store(dbias + mine * e + channel, tl.sum(sum_bias, axis=1)[:, None, :], mask=there)
