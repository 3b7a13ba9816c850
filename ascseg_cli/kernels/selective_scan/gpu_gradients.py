"""The backward pass of the selective scan as Triton kernels; `gpu_kernels.py` says how all of them work."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from ascseg_cli.kernels.selective_scan.gpu_kernels import (
    PLAIN,
    accumulate,
    decay_of,
    load_at_chunk,
    load_states,
    sigmoid,
    softplus,
    tile_of,
    token_at,
)


@triton.jit(do_not_specialize=PLAIN)
def adjoint_ends(
    dy, dy_b, dy_l, dy_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s, C, C_b, C_l, C_s,
    A, A_b, A_s, bias, ends, l, e, n, chunks, groups, length,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """ends (b, chunks, n, e): what each chunk alone hands to the state before it."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = tile_of(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = load_states(A + index * A_b + state * A_s, known, MASKED)
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    dy += row * dy_b + index * dy_s
    delta += row * delta_b + index * delta_s
    z += row * z_b + index * z_s
    C += row * C_b + state * C_s + 0 * channel
    adjoint = tl.zeros([E, CH, N], tl.float32)
    token, live = token_at(chunk * length, length - 1, l, WIDE)
    raw, slope = tl.load(delta + token * delta_l), tl.load(dy + token * dy_l)
    c = load_states(C + token * C_l, known, MASKED)
    gate = tl.load(z + token * z_l)
    for k in range(length):
        later, later_live = token_at(chunk * length, tl.maximum(length - 2 - k, 0), l, WIDE)
        raw_next, slope_next = tl.load(delta + later * delta_l), tl.load(dy + later * dy_l)
        c_next = load_states(C + later * C_l, known, MASKED)
        gate_next = tl.load(z + later * z_l) if HAS_Z else gate
        step, _ = softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        if HAS_Z:
            slope *= gate * sigmoid(gate)
        adjoint = decay_of(step, rate) * (adjoint + tl.where(live, slope, 0.0) * c)
        raw, slope, c, gate, live = raw_next, slope_next, c_next, gate_next, later_live
    tl.store(ends + (row * chunks + chunk) * (n * e) + state * e + channel, adjoint, mask=real & (chunk < chunks))


@triton.jit
def _stash_states(
    stash, s, first, l, length, x, x_l, delta, delta_l, B, B_l, known, rate, shift,
    TILE: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Replay the chunk and keep the state before every step."""
    token, live = token_at(first, 0, l, WIDE)
    raw, value = tl.load(delta + token * delta_l), tl.load(x + token * x_l)
    b = load_states(B + token * B_l, known, MASKED)
    for k in range(length):
        tl.store(stash + k * TILE, s)
        later, later_live = token_at(first, k + 1, l, WIDE)
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next = load_states(B + later * B_l, known, MASKED)
        step, _ = softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = decay_of(step, rate) * s + (step * value) * b
        raw, value, b, live = raw_next, value_next, b_next, later_live
    tl.debug_barrier()


@triton.jit
def _fetch(
    k, first, l, x, x_l, delta, delta_l, z, z_l, dy, dy_l, B, B_l, C, C_l, stash, known,
    HAS_Z: tl.constexpr, TILE: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Everything that step k of the walk back reads."""
    token, _ = token_at(first, k, l, WIDE)
    value, raw, dout = tl.load(x + token * x_l), tl.load(delta + token * delta_l), tl.load(dy + token * dy_l)
    gate = tl.load(z + token * z_l) if HAS_Z else value
    b, c = load_states(B + token * B_l, known, MASKED), load_states(C + token * C_l, known, MASKED)
    return tl.load(stash + k * TILE), value, raw, gate, dout, b, c


@triton.jit
def _retreat(
    token, live, s, value, raw, gate, dout, b, c, adjoint, e, n, a, shift, skip, channel, state,
    dx, ddelta, dz, dB, dC, dB_l, HAS_Z: tl.constexpr,
):  # fmt: skip
    """One step back: the gradients of a token from the state s before it and the adjoint handed to it."""
    there = live & (channel < e)
    step, slope = softplus(raw + shift)
    step, dout = tl.where(live, step, 0.0), tl.where(there, dout, 0.0)
    decay = decay_of(step, a)
    drive = step * value
    kept = decay * s
    s = kept + drive * b
    if HAS_Z:
        out = tl.sum(s * c, axis=2)[:, :, None] + skip * value
        open_ = sigmoid(gate)
        tl.store(dz + token * e, dout * out * open_ * (1.0 + gate * (1.0 - open_)), mask=there)
        dout *= gate * open_
    adjoint += c * dout
    tl.store(dC + token * dB_l, tl.sum(dout * s, axis=0)[None, :, :], mask=live & (state < n))
    tl.store(dB + token * dB_l, tl.sum(adjoint * drive, axis=0)[None, :, :], mask=live & (state < n))
    pull = tl.sum(adjoint * b, axis=2)[:, :, None]
    turn = adjoint * kept
    dstep = tl.where(there, (tl.sum(turn * a, axis=2)[:, :, None] + value * pull) * slope, 0.0)
    tl.store(dx + token * e, step * pull + skip * dout, mask=there)
    tl.store(ddelta + token * e, dstep, mask=there)
    return decay * adjoint, turn * step, value * dout, dstep


@triton.jit(do_not_specialize=PLAIN)
def gradients(
    dy, dy_b, dy_l, dy_s, x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s,
    B, B_b, B_l, B_s, C, C_b, C_l, C_s, A, A_b, A_s, D, bias, carries, adjoints,
    stash, dx, ddelta, dz, dB, dC, dB_b, dB_l, dB_s, dA, dD, dbias, works, rows, l, e, n, chunks, groups, length,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All gradients: dx, ddelta, dz (b, l, e); dB, dC (channel blocks, b, l, n); dA, dD, dbias one row a program.

    stash  (programs, channel blocks, length, tile)  the states of the chunks in work
    """
    TILE: tl.constexpr = N * CH * E
    channel, slot, state, real = tile_of(tl.program_id(1), e, n, N, CH, E)
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    a = load_states(A + index * A_b + state * A_s, known, MASKED)
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    skip = tl.load(D + index) if HAS_D else tl.zeros([E, 1, 1], tl.float32)
    own = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    stash += own * length * TILE + (state * CH + slot) * E + tl.arange(0, E)[:, None, None]
    sum_A, lost_A = tl.zeros([E, CH, N], tl.float32), tl.zeros([E, CH, N], tl.float32)
    sum_D, lost_D = tl.zeros([E, CH, 1], tl.float32), tl.zeros([E, CH, 1], tl.float32)
    sum_bias, lost_bias = tl.zeros([E, CH, 1], tl.float32), tl.zeros([E, CH, 1], tl.float32)
    for work in range(tl.program_id(0), works, tl.num_programs(0)):
        row = (work // groups).to(tl.int64)
        chunk = work % groups * CH + slot
        first = chunk * length
        xs, deltas = x + row * x_b + index * x_s, delta + row * delta_b + index * delta_s
        zs, dys = z + row * z_b + index * z_s, dy + row * dy_b + index * dy_s
        Bs, Cs = B + row * B_b + state * B_s + 0 * channel, C + row * C_b + state * C_s + 0 * channel
        to, to_state = row * l * e + channel, (tl.program_id(1) * rows + row) * dB_b + state * dB_s
        s = load_at_chunk(carries, row, chunk - 1, chunks, state * e + channel, n * e, real)
        _stash_states(
            stash, s, first, l, length, xs, x_l, deltas, delta_l, Bs, B_l, known, a, shift, TILE, MASKED, WIDE
        )
        adjoint = load_at_chunk(adjoints, row, chunk + 1, chunks, state * e + channel, n * e, real)
        s, value, raw, gate, dout, b, c = _fetch(
            length - 1, first, l, xs, x_l, deltas, delta_l, zs, z_l, dys, dy_l, Bs, B_l, Cs, C_l, stash, known,
            HAS_Z, TILE, MASKED, WIDE)  # fmt: skip
        for back in range(length):
            k = length - 1 - back
            s_next, value_next, raw_next, gate_next, dout_next, b_next, c_next = _fetch(
                tl.maximum(k - 1, 0), first, l, xs, x_l, deltas, delta_l, zs, z_l, dys, dy_l, Bs, B_l, Cs, C_l,
                stash, known, HAS_Z, TILE, MASKED, WIDE)  # fmt: skip
            token, live = token_at(first, k, l, WIDE)
            adjoint, part_A, part_D, part_bias = _retreat(
                token, live, s, value, raw, gate, dout, b, c, adjoint, e, n, a, shift, skip, channel, state,
                dx + to, ddelta + to, dz + to, dB + to_state, dC + to_state, dB_l, HAS_Z)  # fmt: skip
            sum_A, lost_A = accumulate(sum_A, lost_A, part_A)
            sum_D, lost_D = accumulate(sum_D, lost_D, part_D)
            sum_bias, lost_bias = accumulate(sum_bias, lost_bias, part_bias)
            s, value, raw, gate, dout, b, c = s_next, value_next, raw_next, gate_next, dout_next, b_next, c_next
        tl.debug_barrier()
    mine = tl.program_id(0)
    tl.store(dA + (mine * n + state) * e + channel, tl.sum(sum_A, axis=1)[:, None, :], mask=real)
    there = channel < e
    tl.store(dD + mine * e + channel, tl.sum(sum_D, axis=1)[:, None, :], mask=there)
    tl.store(dbias + mine * e + channel, tl.sum(sum_bias, axis=1)[:, None, :], mask=there)
