// Mamba's mixer forward where TF32 is allowed: as in `forward.cu`, but a warp by itself does SEGMENTS neighbouring
// chunks of GB groups, so that nothing waits for other warps. Small products run on tensor cores, powers of two on the
// hardware's own unit: it is busy two thirds of the time, yet polynomials beside it cost more than they save (H100).
//
// A thread has a channel of a slot (chunk, group); in the scan it holds half of the 16 states of this channel and of
// its neighbour, the neighbour the other half: so both read the same rows of B and C, half as much each.
// Constants as in `mixer.cuh` with r = 1, n = S = 16, e a multiple of 4, at most 32; WARPS in a block, BLOCKS a
// multiprocessor should hold; RESIDUAL 1 where tokens are added to the result.
#include "mixer.cuh"
#include "tf32.cuh"

constexpr int SEGMENTS = 32 / CH, SLOTS = SEGMENTS * GB, ACTIVE = SLOTS * E;
constexpr int STEPS = SLOTS >= 4 ? 4 : 8;  // tokens of a tile
constexpr int SCANNED = STEPS * SLOTS, TILES = ceil_div(SCANNED, 16);  // rows (token, slot) of a tile; in sixteens
constexpr int PITCH = 40, OF_LOW = 32;                                 // of rows of B, C, and what Δ comes from
constexpr int WIDTH = GB * DIM, FETCHED = SEGMENTS * STEPS * WIDTH, EACH = ceil_div(FETCHED, 32);
constexpr int LOADS = E / 4, OUTS = ceil_div(DIM, 8), HALF_STATES = 8;
constexpr int A_ROWS = TILES * 16, PER_WARP = up(FETCHED, 4) + A_ROWS * (XP + PITCH);

static_assert(RANK == 1 && STATES == 16 && S == 16 && E % 4 == 0 && CH <= 32, "");

DEVICE float quick_logistic(float v) {
#ifndef EMULATED
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + exp2_fast(v * -1.44269504f)));
    return y;
#else
    return 1.0f / (1.0f + exp2_fast(v * -1.44269504f));
#endif
}

// Where a warp works, and what each of its threads has.
struct Part {
    int lane, slot, c, half;  // its channel is c of slot, its states the quads `half` and `half + 2`
    int image, chunk, first;  // the warp's first chunk, its first token
    float *tokens, *x, *p;    // rows (token, slot): at pitch DIM, XP, PITCH
};

// the thread's weights of its channel
struct Own { float x[DIM], z[DIM], taps[4], taps_bias, step, step_bias; };

DEVICE Part part_of(float* shared, int length, int chunks) {
    Part at;
    const int warp = threadIdx.x / 32, number = blockIdx.x * WARPS + warp, together = ceil_div(chunks, SEGMENTS);
    at.lane = threadIdx.x % 32;
    const int me = at.lane < ACTIVE ? at.lane : at.lane - ACTIVE;  // those left over repeat what others do
    at.slot = me / E, at.c = me % E, at.half = at.c % 2;
    at.image = number / together, at.chunk = number % together * SEGMENTS, at.first = at.chunk * length;
    at.tokens = shared + warp * PER_WARP, at.x = at.tokens + up(FETCHED, 4), at.p = at.x + A_ROWS * XP;
    return at;
}

DEVICE Own own_weights(GIVEN_WEIGHTS, int c) {
    Own w;
#pragma unroll
    for (int i = 0; i < DIM; i++) w.x[i] = in_proj[c * DIM + i], w.z[i] = in_proj[(E + c) * DIM + i];
#pragma unroll
    for (int i = 0; i < 4; i++) w.taps[i] = conv[c * 4 + i];
    w.taps_bias = conv_bias[c], w.step = dt_proj[c], w.step_bias = dt_bias[c];
    return w;
}

// Rates of the thread's states of its own channel, then of its neighbour's; states before the first token as in `begin`
DEVICE void rates_of(const float* A_log, const Part& at, float (&rates)[2][HALF_STATES], float (&state)[2][HALF_STATES]) {
#pragma unroll
    for (int of = 0; of < 2; of++)
#pragma unroll
        for (int i = 0; i < HALF_STATES; i++) {
            rates[of][i] = rate_of(A_log, at.c ^ of, i / 4 * 8 + at.half * 4 + i % 4).high;
            state[of][i] = rates[of][i] != rates[of][i] ? rates[of][i] : 0.0f;
        }
}

// A number of each tile that the thread fetches: the next one, where it goes, and where tiles end that have it.
struct Item { const Token* from; int to, end; };

// t: the image's, its first group's
DEVICE void share_out(Item (&items)[EACH], const Token* t, int t_l, int t_c, const Part& at, int length, int l) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int item = i * 32 + at.lane, k = t_c == 1 ? item / WIDTH % STEPS : item % STEPS;
        const int c = t_c == 1 ? item % WIDTH : item / STEPS % WIDTH, segment = item / (WIDTH * STEPS);
        const int token = at.first + segment * length + k;
        items[i].from = t + (long long)(token) * t_l + (long long)(c) * t_c;
        items[i].to = (k * SLOTS + segment * GB) * DIM + c;
        items[i].end = item < FETCHED ? min(l - token, length) : 0;
    }
}

DEVICE void fetch(float (&values)[EACH], Item (&items)[EACH], int start, int t_l) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        values[i] = start < items[i].end ? number(*items[i].from) : 0.0f;
        items[i].from += STEPS * t_l;
    }
}

DEVICE void keep(const float (&values)[EACH], const Item (&items)[EACH], const Part& at) {
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (FETCHED % 32 == 0 || i * 32 + at.lane < FETCHED) at.tokens[items[i].to] = values[i];
}

// What the convolution sees of the three tokens before the chunk
DEVICE void history(
    float (&before)[BACK], const Own& w, const Token* t, int t_l, int t_c, const Part& at, int length, int l
) {
#pragma unroll
    for (int j = 0; j < BACK; j++) {
        const int token = at.first + at.slot / GB * length - BACK + j;
        before[j] = 0.0f;
        if (token < 0 || token >= l) continue;
#pragma unroll
        for (int i = 0; i < DIM; i++) {
            const int c = at.slot % GB * DIM + i;
            before[j] = fmaf(w.x[i], number(t[(long long)(token) * t_l + (long long)(c) * t_c]), before[j]);
        }
    }
}

DEVICE void token_of_row(float (&a)[DIM], const float* row) {
#pragma unroll
    for (int i = 0; i < DIM; i += 2) {
        const float2 v = *reinterpret_cast<const float2*>(row + i);
        a[i] = v.x, a[i + 1] = v.y;
    }
}

// The tile's x after SiLU, also to shared memory, and SiLU(z) if GATED
template <bool GATED> DEVICE void enter(
    float (&x)[STEPS], float (&gate)[STEPS], float (&before)[BACK], const Own& w, const Part& at
) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        float a[DIM], raw = 0.0f, z = 0.0f;
        token_of_row(a, at.tokens + (k * SLOTS + at.slot) * DIM);
#pragma unroll
        for (int i = 0; i < DIM; i++) {
            raw = fmaf(w.x[i], a[i], raw);
            if (GATED) z = fmaf(w.z[i], a[i], z);
        }
        const float early = fmaf(w.taps[1], before[1], fmaf(w.taps[0], before[0], w.taps_bias));
        x[k] = fmaf(w.taps[3], raw, fmaf(w.taps[2], before[2], early));
        before[0] = before[1], before[1] = before[2], before[2] = raw;
        gate[k] = z;
    }
#pragma unroll
    for (int k = 0; k < STEPS; k++) x[k] *= quick_logistic(x[k]);
#pragma unroll
    for (int k = 0; k < STEPS; k++) at.x[(k * SLOTS + at.slot) * XP + at.c] = tf32(x[k]);
    if (GATED)
#pragma unroll
        for (int k = 0; k < STEPS; k++) gate[k] *= quick_logistic(gate[k]);
}

// (K, 8) of a matrix as a thread holds it: `of(k, n)`
template <typename Of> DEVICE void hold(float (&b)[LOADS], Of of) {
#pragma unroll
    for (int i = 0; i < LOADS; i++) b[i] = tf32(of(4 * i + threadIdx.x % 4, threadIdx.x % 32 / 4));
}

// Sixteen rows of at.x from `row` on as a thread holds them
DEVICE void rows_of(float (&upper)[LOADS], float (&lower)[LOADS], const Part& at, int row) {
    const float* from = at.x + (row + at.lane / 4) * XP + at.lane % 4;
#pragma unroll
    for (int i = 0; i < LOADS; i++) upper[i] = from[4 * i], lower[i] = from[8 * XP + 4 * i];
}

// d = rows · b
DEVICE void product(float (&d)[4], const float (&upper)[LOADS], const float (&lower)[LOADS], const float (&b)[LOADS]) {
#pragma unroll
    for (int i = 0; i < 4; i++) d[i] = 0.0f;
#pragma unroll
    for (int i = 0; i + 1 < LOADS; i += 2) multiply_tf32(d, upper[i], lower[i], upper[i + 1], lower[i + 1], b[i], b[i + 1]);
    if (LOADS % 2) multiply_tf32(d, upper[LOADS - 1], lower[LOADS - 1], b[LOADS - 1]);
}

// COUNT eighths of B and C, and what Δ comes from, into the rows of p
template <int COUNT> DEVICE void project(const Part& at, const float (&b)[COUNT][LOADS], const float (&low)[LOADS]) {
    const int g = at.lane / 4, t = at.lane % 4;
#pragma unroll
    for (int row = 0; row < A_ROWS; row += 16) {
        float upper[LOADS], lower[LOADS], d[COUNT][4], of_low[4];
        rows_of(upper, lower, at, row);
#pragma unroll
        for (int n = 0; n < COUNT; n++) product(d[n], upper, lower, b[n]);
        product(of_low, upper, lower, low);
        float *to = at.p + (row + g) * PITCH + 2 * t, *below = to + 8 * PITCH;
#pragma unroll
        for (int n = 0; n < COUNT; n++) {
            *reinterpret_cast<float2*>(to + 8 * n) = make_float2(d[n][0], d[n][1]);
            *reinterpret_cast<float2*>(below + 8 * n) = make_float2(d[n][2], d[n][3]);
        }
        if (t == 0) to[OF_LOW] = of_low[0], below[OF_LOW] = of_low[2];
    }
}

template <int COUNT> DEVICE void projections(float (&b)[COUNT][LOADS], float (&low)[LOADS], const float* x_proj) {
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        hold(b[n], [=](int k, int column) { return x_proj[(1 + 8 * n + column) * E + k]; });
    hold(low, [=](int k, int column) { return column == 0 ? x_proj[k] : 0.0f; });
}

DEVICE void half_of(const float* row, float (&v)[HALF_STATES]) {
    const float4 a = load4(row), b = load4(row + 8);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// Δ of a tile
DEVICE void quick_steps(float (&steps)[STEPS], const Own& w, const Part& at) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        const float v = fmaf(w.step, at.p[(k * SLOTS + at.slot) * PITCH + OF_LOW], w.step_bias);
        steps[k] = step_from(v, exp2_fast(fabsf(v) * -1.44269504f));
    }
}

// A token further
DEVICE void advance(
    float (&state)[HALF_STATES], const float (&rates)[HALF_STATES], const float (&b)[HALF_STATES], float step, float drive
) {
#pragma unroll
    for (int i = 0; i < HALF_STATES; i++) state[i] = fmaf(exp2_fast(step * rates[i]), state[i], drive * b[i]);
}

DEVICE float dot(const float (&a)[HALF_STATES], const float (&b)[HALF_STATES]) {
    float even = 0.0f, odd = 0.0f;
#pragma unroll
    for (int i = 0; i < HALF_STATES; i += 2) even = fmaf(a[i], b[i], even), odd = fmaf(a[i + 1], b[i + 1], odd);
    return even + odd;
}

// Where states of the thread's channel or its neighbour lie in (chunks, CH, N) from `chunk` of the slot on
DEVICE size_t states_at(const Part& at, int chunks, int of) {
    const size_t chunk = (size_t(at.image) * gridDim.y + blockIdx.y) * chunks + at.chunk + at.slot / GB;
    return (chunk * CH + at.slot % GB * E + (at.c ^ of)) * N + at.half * 4;
}

// The rows of at.x through out_proj, and the tokens themselves if RESIDUAL, to y from the tile's first token on
DEVICE void leave(
    Token* y, int width, const Part& at, const float (&of_out)[OUTS][LOADS], int start, int length, int l
) {
#pragma unroll
    for (int first = 0; first < A_ROWS; first += 16) {
        float upper[LOADS], lower[LOADS], d[4];
        rows_of(upper, lower, at, first);
#pragma unroll
        for (int n = 0; n < OUTS; n++) {
            product(d, upper, lower, of_out[n]);
            const int o = 8 * n + at.lane % 4 * 2;
#pragma unroll
            for (int below = 0; below < 2; below++) {
                const unsigned row = first + at.lane / 4 + below * 8, slot = row % SLOTS;
                const int k = row / SLOTS, token = slot / GB * length + k;  // after the tile's first
                const bool real = (A_ROWS == SCANNED || row < SCANNED) && start + k < length;
                if (o >= DIM || !real || at.first + start + token >= l) continue;
                float2 v = make_float2(d[2 * below], d[2 * below + 1]);
                if (RESIDUAL) {
                    const float* own = at.tokens + row * DIM + o;
                    v.x += own[0], v.y += own[1];
                }
                put2(y + (long long)(token) * width + slot % GB * DIM + o, v.x, v.y);
            }
        }
    }
}

// ends (b, blocks of groups, chunks, CH · N), totals (b, blocks of groups, chunks, CH) as in `forward.cu`;
// grid (warps' worth of b · chunks, blocks of groups)
KERNEL __launch_bounds__(32 * WARPS, BLOCKS) chunk_ends(
    const Token* t, int t_b, int t_l, int t_c, GIVEN_WEIGHTS, float* ends, float* totals, int b, int l, int length, int chunks
) {
    SHARED(float, shared);
    const Part at = part_of(shared, length, chunks);
    if (at.image >= b) return;
    t += (long long)(at.image) * t_b + (long long)(blockIdx.y) * WIDTH * t_c;
    const Own own = own_weights(GIVEN, at.c);
    float of_states[2][LOADS], of_low[LOADS];
    projections(of_states, of_low, x_proj);
    float rates[2][HALF_STATES], state[2][HALF_STATES], before[BACK], values[EACH], total = 0.0f;
    rates_of(A_log, at, rates, state);
    history(before, own, t, t_l, t_c, at, length, l);
    Item items[EACH];
    share_out(items, t, t_l, t_c, at, length, l);
    fetch(values, items, 0, t_l);
    for (int start = 0; start < min(length, l - at.first); start += STEPS) {
        float x[STEPS], gate[STEPS], steps[STEPS];
        keep(values, items, at);
        __syncwarp();
        enter<false>(x, gate, before, own, at);
        fetch(values, items, start + STEPS, t_l);
        __syncwarp();
        project(at, of_states, of_low);
        __syncwarp();
        quick_steps(steps, own, at);
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            const float* row = at.p + (k * SLOTS + at.slot) * PITCH;
            const float step = steps[k], drive = step * x[k];
            const float step_beside = __shfl_xor_sync(~0u, step, 1), drive_beside = __shfl_xor_sync(~0u, drive, 1);
            float added[HALF_STATES];
            half_of(row + at.half * 4, added);
            advance(state[0], rates[0], added, step, drive);
            advance(state[1], rates[1], added, step_beside, drive_beside);
            total += step;
        }
    }
    if (at.chunk + at.slot / GB >= chunks) return;
#pragma unroll
    for (int of = 0; of < 2; of++)
#pragma unroll
        for (int i = 0; i < HALF_STATES; i += 4) {
            const float* s = state[of] + i;
            store4(ends + states_at(at, chunks, of) + i * 2, make_float4(s[0], s[1], s[2], s[3]));
        }
    totals[states_at(at, chunks, 0) / N] = total;
}

// y (b, l, channels) from the states before each chunk (`starts`, as `ends` above; null: zero)
KERNEL __launch_bounds__(32 * WARPS, BLOCKS) replay(
    const Token* t, int t_b, int t_l, int t_c, GIVEN_WEIGHTS, const float* starts, Token* y, int b, int l, int length, int chunks
) {
    SHARED(float, shared);
    const Part at = part_of(shared, length, chunks);
    if (at.image >= b) return;
    const int width = gridDim.y * WIDTH;
    t += (long long)(at.image) * t_b + (long long)(blockIdx.y) * WIDTH * t_c;
    y += size_t(at.image) * l * width + blockIdx.y * WIDTH;
    const Own own = own_weights(GIVEN, at.c);
    const float skipped = skip[at.c];
    float of_states[4][LOADS], of_low[LOADS], of_out[OUTS][LOADS];
    projections(of_states, of_low, x_proj);
#pragma unroll
    for (int n = 0; n < OUTS; n++)
        hold(of_out[n], [=](int k, int column) {
            return 8 * n + column < DIM ? out_proj[(8 * n + column) * E + k] : 0.0f;
        });
    float rates[2][HALF_STATES], state[2][HALF_STATES], before[BACK], values[EACH];
    Item items[EACH];
    rates_of(A_log, at, rates, state);
    if (starts != nullptr && at.chunk + at.slot / GB < chunks)
        for (int of = 0; of < 2; of++) half_of(starts + states_at(at, chunks, of), state[of]);
    history(before, own, t, t_l, t_c, at, length, l);
    share_out(items, t, t_l, t_c, at, length, l);
    fetch(values, items, 0, t_l);
    for (int start = 0; start < min(length, l - at.first); start += STEPS) {
        float x[STEPS], gate[STEPS], steps[STEPS];
        keep(values, items, at);
        __syncwarp();
        enter<true>(x, gate, before, own, at);
        fetch(values, items, start + STEPS, t_l);
        __syncwarp();
        project(at, of_states, of_low);
        __syncwarp();
        quick_steps(steps, own, at);
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            const float* row = at.p + (k * SLOTS + at.slot) * PITCH;
            const float step = steps[k], drive = step * x[k];
            const float step_beside = __shfl_xor_sync(~0u, step, 1), drive_beside = __shfl_xor_sync(~0u, drive, 1);
            float added[HALF_STATES], read[HALF_STATES];
            half_of(row + at.half * 4, added);
            half_of(row + N + at.half * 4, read);
            advance(state[0], rates[0], added, step, drive);
            advance(state[1], rates[1], added, step_beside, drive_beside);
            const float sum = dot(read, state[0]) + __shfl_xor_sync(~0u, dot(read, state[1]), 1);
            gate[k] *= fmaf(skipped, x[k], sum);
        }
#pragma unroll
        for (int k = 0; k < STEPS; k++) at.x[(k * SLOTS + at.slot) * XP + at.c] = tf32(gate[k]);
        __syncwarp();
        leave(y + size_t(at.first + start) * width, width, at, of_out, start, length, l);
        __syncwarp();
    }
}
