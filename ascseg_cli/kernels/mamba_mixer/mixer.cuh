// Mamba's mixer in pieces: what becomes of a tile of tokens before its scan, in shared memory.
// Constants: DIM d, RANK r, STATES n, GB groups in a block, S states of a thread (4, 8 or 16), HALF 1 for bfloat16 tokens.
//
// A block holds a chunk of tokens of one image and GB groups of its channels, and goes through it tile by tile.
// Rows of shared memory are (token, group); "lanes" are threads that hold states: channel ch = g·e + c, S states each.
#pragma once
#include "device.cuh"

DEVICE constexpr int up(int v, int step) { return (v + step - 1) / step * step; }
// The pitch of rows from which neighbouring threads read float4 without meeting in a bank.
DEVICE constexpr int odd4(int v) { return up(v, 4) / 4 % 2 ? up(v, 4) : up(v, 4) + 4; }

constexpr int TILE = 16, RUN = 4, BACK = 3;  // tokens of a tile, of a convolving thread, and before it
constexpr int E = 2 * DIM, Q = ceil_div(STATES, S), N = Q * S;  // Q threads share a channel's states
constexpr int CH = GB * E, LANES = CH * Q, THREADS = up(LANES, 32), ROWS = TILE * GB;
constexpr int EP = up(E, 4), XP = odd4(E), DP = odd4(DIM);  // rows of inner channels, of tokens
constexpr int LOW = 2 * N, PP = odd4(LOW + RANK);           // rows of B, C, and from LOW on what Δ comes from
constexpr int TOKEN_QUADS = DIM <= 8 ? ceil_div(DIM, 4) : 1, INNER_QUADS = EP <= 16 ? EP / 4 : 2;  // to unroll
constexpr int RESIDENT = THREADS < 640 ? 640 / THREADS : 1;  // blocks a multiprocessor, for 96 registers a thread

#if HALF
typedef unsigned short Token;
DEVICE float number(Token v) { return __uint_as_float(unsigned(v) << 16); }
DEVICE Token token_of(float v) {  // to nearest, ties to even
    const unsigned bits = __float_as_uint(v);
    return v != v ? 0x7fc0 : Token((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
#else
typedef float Token;
DEVICE float number(Token v) { return v; }
DEVICE Token token_of(float v) { return v; }
#endif

// Two numbers beside each other, of which the first lies at an even place.
DEVICE void put2(Token* to, float a, float b) {
#if HALF && !defined(EMULATED)
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(b), "f"(a));
    *reinterpret_cast<unsigned*>(to) = both;
#else
    struct __align__(2 * sizeof(Token)) Pair { Token first, second; };
    *reinterpret_cast<Pair*>(to) = {token_of(a), token_of(b)};
#endif
}

// A · log2(e), and what its rounding leaves; finite, so that Δ = 0 always keeps a state. Zero for a padded state.
struct Rate { float high, low; };

DEVICE Rate rate_of(const float* A_log, int c, int n) {
    if (n >= STATES) return {0.0f, 0.0f};
    const float a = -expf(A_log[c * STATES + n]), high = a * 1.44269502f;
    if (high < -1e30f) return {-1e30f, 0.0f};
    return {high, fmaf(a, 1.92596299e-8f, fmaf(a, 1.44269502f, -high))};
}

// exp(step · A) for step >= 0 to 0.7 units in the last place, and the closer to 1 the better: what a state keeps is
// multiplied thousands of times, so an error of the GPU's own exp2, two units, would add up. Zero below 2^-126.
DEVICE float decay_exact(float step, Rate rate) {
    const float shifted = fmaf(step, rate.high, 12582912.0f);  // 1.5 · 2^23: float32 here holds whole numbers only
    float r = fmaf(step, rate.high, 12582912.0f - shifted);
    r = fmaf(step, rate.low, r);
    float p = fmaf(r, 1.5353362e-4f, 1.3398874e-3f);  // fitted to (2^r - 1) / r in -½..½
    p = fmaf(r, p, 9.6184369e-3f);
    p = fmaf(r, p, 5.5503324e-2f);
    p = fmaf(r, p, 0.24022648f);
    p = fmaf(r, p, 0.69314718f);
    p = fmaf(r, p, 1.0f);
    const float decay = __int_as_float(__float_as_int(p) + (__float_as_int(shifted) << 23));
    return shifted >= 12582912.0f - 126.0f ? decay : 0.0f;
}

// 2^v as the GPU has it: two units in the last place, zero below -126
DEVICE float exp2_fast(float v) {
#ifndef EMULATED
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(v));
    return y;
#else
    const unsigned mixed = __float_as_uint(v) * 2654435761u;  // an error as large as the GPU's may be
    return v < -126.0f ? 0.0f : exp2f(v) * (1.0f + (int(mixed >> 16) - 32768) / 32768.0f * 1.7e-7f);
#endif
}

#if HALF
DEVICE float decay_of(float step, Rate rate) { return exp2_fast(step * rate.high); }
#else
DEVICE float decay_of(float step, Rate rate) { return decay_exact(step, rate); }
#endif

// 1 / v for v in 1..2
DEVICE float reciprocal(float v) {
#ifndef EMULATED
    float guess;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(guess) : "f"(v));
#else
    const float guess = 1.0f / v;
#endif
    return fmaf(guess, fmaf(-v, guess, 1.0f), guess);
}

DEVICE float logistic(float v) {
    const float u = expf(-fabsf(v));
    return (v < 0.0f ? u : 1.0f) * reciprocal(1.0f + u);
}

// log(1 + e^v) from u = exp(-|v|); log(1 + u) = u + u² f(u) keeps its relative accuracy for tiny u, f fitted in 0..1,
// sum to 3e-8
DEVICE float step_from(float v, float u) {
    float f = fmaf(u, fmaf(u, -0.004579766f, 0.025682786f), -0.06751181f);
    f = fmaf(u, fmaf(u, fmaf(u, f, 0.11626528f), -0.15878385f), 0.1986211f);
    f = fmaf(u, fmaf(u, fmaf(u, f, -0.24987552f), 0.33332893f), -0.5f);
    return (v < 0.0f ? 0.0f : v) + fmaf(u, u * f, u);
}

DEVICE float step_of(float v) { return step_from(v, expf(-fabsf(v))); }

// sum + a · b over those of the quad's four numbers that are below TOTAL
template <int TOTAL> DEVICE float dot4(float4 a, float4 b, float sum, int quad) {
    sum = fmaf(a.x, b.x, sum);
    if (TOTAL % 4 == 0 || 4 * quad + 1 < TOTAL) sum = fmaf(a.y, b.y, sum);
    if (TOTAL % 4 == 0 || 4 * quad + 2 < TOTAL) sum = fmaf(a.z, b.z, sum);
    if (TOTAL % 4 == 0 || 4 * quad + 3 < TOTAL) sum = fmaf(a.w, b.w, sum);
    return sum;
}

// sum + scale · a
DEVICE float4 fma4(float scale, float4 a, float4 sum) {
    return make_float4(
        fmaf(scale, a.x, sum.x), fmaf(scale, a.y, sum.y), fmaf(scale, a.z, sum.z), fmaf(scale, a.w, sum.w)
    );
}

#define GIVEN_WEIGHTS                                                                                             \
    const float* in_proj, const float* conv, const float* conv_bias, const float* x_proj, const float* dt_proj,   \
    const float* dt_bias, const float* A_log, const float* skip, const float* out_proj
#define GIVEN in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, skip, out_proj

// The weights in shared memory.
constexpr int W_IN = 0;                          // (2e, d) at pitch DP
constexpr int W_OUT = W_IN + 2 * E * DP;         // (d, e) at pitch XP
constexpr int W_STATES = W_OUT + DIM * XP;       // (e, B and C): x_proj's rows as columns
constexpr int W_LOW = W_STATES + EP * 2 * N;     // (r, e) at pitch EP
constexpr int W_CONV = W_LOW + RANK * EP;        // (e, 4)
constexpr int W_STEP = W_CONV + 4 * E;           // (e, r)
constexpr int W_STEP_BIAS = W_STEP + E * RANK;   // (e)
constexpr int W_CONV_BIAS = W_STEP_BIAS + E;     // (e)
constexpr int W_SKIP = W_CONV_BIAS + E;          // (e)
constexpr int WEIGHTS = up(W_SKIP + E, 4);

// Row o of B, C (state o % N); padded states have zero.
DEVICE float state_weight(const float* x_proj, int o, int c) {
    const int n = o % N, row = RANK + (o < N ? 0 : STATES) + n;
    return n < STATES && c < E ? x_proj[row * E + c] : 0.0f;
}

#define FETCH(name, count, value)                                          \
    float name[ceil_div(count, THREADS)];                                  \
    _Pragma("unroll") for (int u = 0; u < ceil_div(count, THREADS); u++) { \
        const int i = threadIdx.x + u * THREADS;                           \
        name[u] = i < (count) ? (value) : 0.0f;                            \
    }
#define KEEP(name, count, target)                                          \
    _Pragma("unroll") for (int u = 0; u < ceil_div(count, THREADS); u++) { \
        const int i = threadIdx.x + u * THREADS;                           \
        if (i < (count)) (target)[i] = name[u];                            \
    }

// All loads are on their way before the first is waited for.
DEVICE void fetch_weights(float* w, GIVEN_WEIGHTS) {
    FETCH(in, 2 * E * DP, i % DP < DIM ? in_proj[i / DP * DIM + i % DP] : 0.0f)
    FETCH(out, DIM * XP, i % XP < E ? out_proj[i / XP * E + i % XP] : 0.0f)
    FETCH(states, EP * 2 * N, state_weight(x_proj, i % (2 * N), i / (2 * N)))
    FETCH(low, RANK * EP, i % EP < E ? x_proj[i / EP * E + i % EP] : 0.0f)
    FETCH(step, E * RANK, dt_proj[i])
    FETCH(step_bias, E, dt_bias[i])
    FETCH(taps, 4 * E, conv[i])
    FETCH(taps_bias, E, conv_bias[i])
    FETCH(skips, E, skip[i])
    KEEP(in, 2 * E * DP, w + W_IN)
    KEEP(out, DIM * XP, w + W_OUT)
    KEEP(states, EP * 2 * N, w + W_STATES)
    KEEP(low, RANK * EP, w + W_LOW)
    KEEP(step, E * RANK, w + W_STEP)
    KEEP(step_bias, E, w + W_STEP_BIAS)
    KEEP(taps, 4 * E, w + W_CONV)
    KEEP(taps_bias, E, w + W_CONV_BIAS)
    KEEP(skips, E, w + W_SKIP)
}

// The rates of this lane's S states, and the states before the first token: zero, or NaN as the rate is
DEVICE void begin(const float* A_log, Rate (&rates)[S], float (&state)[S]) {
    const int lane = min(int(threadIdx.x), LANES - 1);
#pragma unroll
    for (int s = 0; s < S; s++) {
        rates[s] = rate_of(A_log, lane / Q % E, lane % Q * S + s);
        state[s] = rates[s].high != rates[s].high ? rates[s].high : 0.0f;
    }
}

// `count` tokens from `first` on, zeros outside the image; rows (token, group) at pitch DP. t: this image's first group
DEVICE void fetch_tokens(float* to, const Token* t, int t_l, int t_c, int first, int count, int l) {
    constexpr int WIDTH = GB * DIM;
    for (int i = threadIdx.x; i < count * WIDTH; i += THREADS) {
        const int k = t_c == 1 ? i / WIDTH : i % count, c = t_c == 1 ? i % WIDTH : i / count, token = first + k;
        const bool inside = token >= 0 && token < l;
        to[(k * GB + c / DIM) * DP + c % DIM] =
            inside ? number(t[(long long)(token) * t_l + (long long)(c) * t_c]) : 0.0f;
    }
}

// What the convolution sees: x of RUN tokens and the BACK before them. t: the first of the latter
DEVICE void raw_of(const float* w, const float* t, int g, int c, float (&raw)[RUN + BACK]) {
#pragma unroll
    for (int j = 0; j < RUN + BACK; j++) raw[j] = 0.0f;
#pragma unroll TOKEN_QUADS
    for (int q = 0; q < ceil_div(DIM, 4); q++) {
        const float4 weight = load4(w + W_IN + c * DP + 4 * q);
#pragma unroll
        for (int j = 0; j < RUN + BACK; j++)
            raw[j] = dot4<DIM>(weight, load4(t + (j * GB + g) * DP + 4 * q), raw[j], q);
    }
}

// Before SiLU
DEVICE float convolved(const float* w, const float (&raw)[RUN + BACK], int c, int j) {
    const float4 taps = load4(w + W_CONV + 4 * c);
    const float early = fmaf(taps.y, raw[j + 1], fmaf(taps.x, raw[j], w[W_CONV_BIAS + c]));
    return fmaf(taps.w, raw[j + 3], fmaf(taps.z, raw[j + 2], early));
}

DEVICE float gate_of(const float* w, const float* t, int g, int c, int k) {
    float z = 0.0f;
#pragma unroll TOKEN_QUADS
    for (int q = 0; q < ceil_div(DIM, 4); q++)
        z = dot4<DIM>(load4(w + W_IN + (E + c) * DP + 4 * q), load4(t + ((k + BACK) * GB + g) * DP + 4 * q), z, q);
    return z;
}

// x of a tile after convolution and SiLU; t: BACK tokens before the tile
DEVICE void convolve(const float* w, const float* t, float* x) {
#pragma unroll 1
    for (int item = threadIdx.x; item < CH * (TILE / RUN); item += THREADS) {
        const int ch = item % CH, g = ch / E, c = ch % E, first = item / CH * RUN;
        float raw[RUN + BACK];
        raw_of(w, t + first * GB * DP, g, c, raw);
#pragma unroll
        for (int j = 0; j < RUN; j++) {
            const float v = convolved(w, raw, c, j);
            x[((first + j) * GB + g) * XP + c] = v * logistic(v);
        }
    }
}

// Δ of a tile, zero from token `count` on, and where Δ comes from into rows of `p`
template <bool KEEP_LOW> DEVICE void steps(const float* w, const float* x, float* delta, float* p, int count) {
    for (int item = threadIdx.x; item < ROWS * (EP / 4); item += THREADS) {
        const int row = item % ROWS, c4 = item / ROWS * 4;
        float low[RANK];
#pragma unroll
        for (int r = 0; r < RANK; r++) {
            low[r] = 0.0f;
            for (int q = 0; q < EP / 4; q++)
                low[r] = dot4<E>(load4(w + W_LOW + r * EP + 4 * q), load4(x + row * XP + 4 * q), low[r], q);
            if (KEEP_LOW && c4 == 0) p[row * PP + LOW + r] = low[r];
        }
#pragma unroll
        for (int c = c4; c < c4 + 4; c++) {
            if (E % 4 != 0 && c >= E) break;
            float v = w[W_STEP_BIAS + c];
            for (int r = 0; r < RANK; r++) v = fmaf(w[W_STEP + c * RANK + r], low[r], v);
            delta[row * XP + c] = row / GB < count ? step_of(v) : 0.0f;
        }
    }
}

// B and C of a tile, or one of them, into rows of `p`: quads of states FIRST..LAST of the 2N / 4
template <int FIRST, int LAST> DEVICE void states(const float* w, const float* x, float* p) {
    for (int item = threadIdx.x; item < ROWS * (LAST - FIRST); item += THREADS) {
        const int row = item % ROWS, o = (FIRST + item / ROWS) * 4;
        const float* weight = w + W_STATES + o;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll INNER_QUADS
        for (int c = 0; c < EP; c += 4) {
            const float4 v = load4(x + row * XP + c);
            sum = fma4(v.x, load4(weight + c * 2 * N), sum);
            if (E % 4 == 0 || c + 1 < E) sum = fma4(v.y, load4(weight + (c + 1) * 2 * N), sum);
            if (E % 4 == 0 || c + 2 < E) sum = fma4(v.z, load4(weight + (c + 2) * 2 * N), sum);
            if (E % 4 == 0 || c + 3 < E) sum = fma4(v.w, load4(weight + (c + 3) * 2 * N), sum);
        }
        store4(p + row * PP + o, sum);
    }
}

// S numbers of a row in quads
DEVICE void load_states(const float* from, float (&to)[S]) {
#pragma unroll
    for (int s = 0; s < S; s += 4) {
        const float4 v = load4(from + s);
        to[s] = v.x, to[s + 1] = v.y, to[s + 2] = v.z, to[s + 3] = v.w;
    }
}
DEVICE void store_states(float* to, const float (&from)[S]) {
#pragma unroll
    for (int s = 0; s < S; s += 4) store4(to + s, make_float4(from[s], from[s + 1], from[s + 2], from[s + 3]));
}
