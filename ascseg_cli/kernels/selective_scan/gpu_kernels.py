"""The selective scan as Triton kernels, parallel over chunks of the sequence.

Forward: `chunk_ends` scans every chunk from a zero state, `link_chunks` carries the states from chunk to chunk,
`replay` scans again from the right states and writes y. Backward: `adjoint_ends` and `link_chunks` do the same
for the adjoint, from the last token to the first; `gradients` then recomputes each chunk's states and walks back
(both in `gpu_gradients.py`).

A program is one warp with a tile (e, chunks, n) in registers: channels lie in neighbouring lanes, and what is left
of the 32 lanes goes to chunks and states. Everything is float32; decays are multiplied, never divided by. Sums
over channels stay inside a program, sums over tokens go through one partial result a program: nothing is atomic,
so gradients are the same to the bit in every run.

Loads aren't masked along tokens and channels: indices are clamped, and a dead token has Δ = 0 and dy = 0.
Strides aren't specialised: where the compiler sees no contiguity, the first dimension of a tile lies in
neighbouring lanes, for every load alike, and no value moves between layouts inside the loops over tokens.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
ROUND = tl.constexpr(12582912.0)  # 1.5 · 2^23: float32 from here on holds whole numbers only

PLAIN = [f"{t}{part}" for t in ("x", "delta", "z", "A", "B", "C", "dy", "dB") for part in ("", "_b", "_l", "_s")]
PLAIN += ["y", "D", "bias", "ends", "totals", "carries", "adjoints"]
PLAIN += ["l", "e", "n", "chunks", "groups", "length", "works", "rows"]


@triton.jit
def _exp_minus(v):
    """exp(-v) for v >= 0, within a unit in the last place: the GPU's own exp2 errs by two."""
    v = tl.minimum(v, 100.0)
    k = tl.fma(v, LOG2E, ROUND) - ROUND  # to the nearest whole number; tl.floor runs at an eighth of the rate
    r = tl.fma(k, 2.1219444e-4, tl.fma(k, -0.693359375, v))  # v - k · log(2); the products are exact
    q = 0.5 - r * (0.16666576 - r * (0.041666463 - r * (0.0083632357 - r * 0.0013933732)))  # fitted, 1e-8
    return (1.0 - (r - r * (r * q))) * tl.exp2(-k)


@triton.jit
def decay_of(step, rate):
    """exp(step · rate) for rate < 0. With the GPU's own exp2 the adjoint missed plain torch's accuracy."""
    return _exp_minus(-(step * rate))


@triton.jit
def _reciprocal(v):
    """1 / v for v in 1..2, with one step of Newton's after the GPU's approximate division."""
    guess = 1.0 / v
    return tl.fma(guess, tl.fma(-v, guess, 1.0), guess)


@triton.jit
def softplus(v):
    """softplus(v) and its slope.

    log(1 + u) as u + u² f(u), which keeps its relative accuracy for tiny u; f is a polynomial fitted at the
    Chebyshev nodes of 0..1, relative error of the sum 3e-8.
    """
    u = _exp_minus(tl.abs(v))
    f = -0.06751181 + u * (0.025682786 + u * -0.004579766)
    f = 0.1986211 + u * (-0.15878385 + u * (0.11626528 + u * f))
    f = -0.5 + u * (0.33332893 + u * (-0.24987552 + u * f))
    return tl.where(v < 0, 0.0, v) + (u + u * (u * f)), tl.where(v < 0, u, 1.0) * _reciprocal(1.0 + u)


@triton.jit
def sigmoid(v):
    u = _exp_minus(tl.abs(v))
    return tl.where(v < 0, u, 1.0) * _reciprocal(1.0 + u)


@triton.jit
def accumulate(total, lost, value):
    """Kahan's sum: plain torch, which adds pairwise, is the measure."""
    value -= lost
    after = total + value
    return after, (after - total) - value


@triton.jit
def load_states(pointer, live, MASKED: tl.constexpr):
    """A load over the tile's states; only an n that is no power of two needs a mask."""
    if MASKED:
        return tl.load(pointer, mask=live, other=0.0)
    return tl.load(pointer)


@triton.jit
def tile_of(block, e, n, N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr):
    """channel (e, 1, 1), slot (1, chunks, 1), state (1, 1, n), and which of (e, 1, n) exist."""
    channel = block * E + tl.arange(0, E)[:, None, None]
    slot = tl.arange(0, CH)[None, :, None]
    state = tl.arange(0, N)[None, None, :]
    return channel, slot, state, (channel < e) & (state < n)


@triton.jit
def token_at(first, k, l, WIDE: tl.constexpr):
    """The token of step k in each chunk, clamped, and whether it exists."""
    token = first + k
    live = token < l
    token = tl.minimum(token, l - 1)
    return (token.to(tl.int64) if WIDE else token), live


@triton.jit
def load_at_chunk(pointer, row, chunk, chunks, column, size, live):
    """State tiles kept for each chunk as (b, chunks, n, e); zero where the chunk doesn't exist."""
    offset = (row * chunks + chunk).to(tl.int64) * size + column
    return tl.load(pointer + offset, mask=live & (chunk >= 0) & (chunk < chunks), other=0.0)


@triton.jit(do_not_specialize=PLAIN)
def chunk_ends(
    x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, B, B_b, B_l, B_s, A, A_b, A_s, bias, ends, totals,
    l, e, n, chunks, groups, length,
    HAS_BIAS: tl.constexpr, N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """ends (b, chunks, n, e): each chunk's last state when it starts at zero; totals (b, chunks, e): its ΣΔ."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = tile_of(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = load_states(A + index * A_b + state * A_s, known, MASKED)
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    x += row * x_b + index * x_s
    delta += row * delta_b + index * delta_s
    B += row * B_b + state * B_s + 0 * channel
    s = tl.zeros([E, CH, N], tl.float32)
    total = tl.zeros([E, CH, 1], tl.float32)
    lost = tl.zeros([E, CH, 1], tl.float32)
    token, live = token_at(chunk * length, 0, l, WIDE)
    raw, value = tl.load(delta + token * delta_l), tl.load(x + token * x_l)
    b = load_states(B + token * B_l, known, MASKED)
    for k in range(length):
        later, later_live = token_at(chunk * length, k + 1, l, WIDE)  # in flight while this step is computed
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next = load_states(B + later * B_l, known, MASKED)
        step, _ = softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = decay_of(step, rate) * s + (step * value) * b
        total, lost = accumulate(total, lost, step)
        raw, value, b, live = raw_next, value_next, b_next, later_live
    place = row * chunks + chunk
    tl.store(ends + place * (n * e) + state * e + channel, s, mask=real & (chunk < chunks))
    tl.store(totals + place * e + channel, total, mask=(channel < e) & (chunk < chunks))


@triton.jit
def _then(decay, state, decay_after, state_after):
    return decay * decay_after, state * decay_after + state_after


@triton.jit(do_not_specialize=PLAIN)
def link_chunks(
    ends, totals, A, A_b, A_s, e, n, chunks, K: tl.constexpr, COLUMNS: tl.constexpr, BACKWARD: tl.constexpr
):  # fmt: skip
    """ends (b, chunks, n, e), in place: from each chunk's own end to the state after it (BACKWARD: before it)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    known = column < n * e
    channel = column % e
    rate = tl.load(A + channel * A_b + column // e * A_s, mask=known, other=0.0)
    place = tl.arange(0, K)[:, None]
    carry = tl.zeros([1, COLUMNS], tl.float32)
    for first in range(0, chunks, K):
        chunk = first + place
        live = (chunk < chunks) & known
        if BACKWARD:
            chunk = chunks - 1 - chunk
        at = row * chunks + chunk
        decay = decay_of(tl.load(totals + at * e + channel, mask=live, other=0.0), rate)
        end = tl.load(ends + at * (n * e) + column, mask=live, other=0.0)
        decay, state = tl.associative_scan((decay, end), 0, _then)
        state += decay * carry
        tl.store(ends + at * (n * e) + column, state, mask=live)
        carry = tl.sum(tl.where(place == K - 1, state, 0.0), axis=0)[None, :]


@triton.jit(do_not_specialize=PLAIN)
def replay(
    x, x_b, x_l, x_s, delta, delta_b, delta_l, delta_s, z, z_b, z_l, z_s, B, B_b, B_l, B_s, C, C_b, C_l, C_s,
    A, A_b, A_s, D, bias, carries, y, l, e, n, chunks, groups, length,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    N: tl.constexpr, CH: tl.constexpr, E: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """y (b, l, e), from the state after each chunk in carries (b, chunks, n, e)."""
    row = (tl.program_id(0) // groups).to(tl.int64)
    channel, slot, state, real = tile_of(tl.program_id(1), e, n, N, CH, E)
    chunk = tl.program_id(0) % groups * CH + slot
    index = tl.minimum(channel, e - 1)
    known = state < n + 0 * channel
    rate = load_states(A + index * A_b + state * A_s, known, MASKED)
    shift = tl.load(bias + index) if HAS_BIAS else 0.0
    skip = tl.load(D + index) if HAS_D else 0.0
    x += row * x_b + index * x_s
    delta += row * delta_b + index * delta_s
    z += row * z_b + index * z_s
    B += row * B_b + state * B_s + 0 * channel
    C += row * C_b + state * C_s + 0 * channel
    y += row * l * e + channel
    s = load_at_chunk(carries, row, chunk - 1, chunks, state * e + channel, n * e, real)
    token, live = token_at(chunk * length, 0, l, WIDE)
    raw, value = tl.load(delta + token * delta_l), tl.load(x + token * x_l)
    b = load_states(B + token * B_l, known, MASKED)
    c = load_states(C + token * C_l, known, MASKED)
    gate = tl.load(z + token * z_l)
    for k in range(length):
        later, later_live = token_at(chunk * length, k + 1, l, WIDE)
        raw_next, value_next = tl.load(delta + later * delta_l), tl.load(x + later * x_l)
        b_next, c_next = load_states(B + later * B_l, known, MASKED), load_states(C + later * C_l, known, MASKED)
        gate_next = tl.load(z + later * z_l) if HAS_Z else gate
        step, _ = softplus(raw + shift)
        step = tl.where(live, step, 0.0)
        s = decay_of(step, rate) * s + (step * value) * b
        out = tl.sum(s * c, axis=2)[:, :, None]
        if HAS_D:
            out += skip * value
        if HAS_Z:
            out *= gate * sigmoid(gate)
        tl.store(y + token * e, out, mask=live & (channel < e))
        raw, value, b, c, gate = raw_next, value_next, b_next, c_next, gate_next
        token, live = later, later_live
