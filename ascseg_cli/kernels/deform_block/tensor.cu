// `block.cu` for bfloat16 images: both convolutions on tensor cores, as products of TF32 numbers. A warp does its 32 pixels, two rows of 16, by
// itself once the block's tile of p and the weights lie in shared memory; only when all have their offsets do samples
// take the tile's place.
//
// C channels, a multiple of 8 · P_PITCH numbers from a pixel of p to the next · WARPS in a block, whose tile is 16
// pixels wide and 2 · WARPS high
#define HALF 1
#include "element.cuh"
#include "sample.cuh"
#include "tf32.cuh"

constexpr int OFFSETS = 2 * TAPS, THREADS = 32 * WARPS, TILE_W = 16, TILE_H = 2 * WARPS, MINE = 32;
constexpr int WIDTH = TILE_W + 2, HALO = (TILE_H + 2) * WIDTH, EIGHTS = C / 8, PITCH = C + 4;
constexpr int FIRST = 3, STEPS = TAPS * EIGHTS;        // eighths of the offsets; of the first convolution's depth
constexpr int CH = 8, GROUPS = C / CH;                 // channels a thread samples: 16 bytes
constexpr int RESIDENT = 1024 / THREADS;               // blocks of a multiprocessor, for 64 registers a thread

// Shared memory: p's tile (HALO, PITCH), weights as warps hold them (STEPS, FIRST, 32, 2), (EIGHTS, EIGHTS, 32, 2),
// taps (9, C), each warp's offsets (32, 18); samples (32, PITCH) of each warp lie where the tile was.
struct Memory { float *tile, *weights, *balance, *taps, *offsets, *samples; };

DEVICE Memory memory_of(float* shared) {
    Memory m;
    m.tile = shared;
    m.weights = m.tile + HALO * PITCH;
    m.balance = m.weights + STEPS * FIRST * 64;
    m.taps = m.balance + EIGHTS * EIGHTS * 64;
    m.offsets = m.taps + TAPS * C + threadIdx.x / 32 * MINE * OFFSETS;
    m.samples = m.tile + threadIdx.x / 32 * MINE * PITCH;
    return m;
}

struct Place { int row, column, h, w; };  // the tile's first pixel; the image's size

DEVICE void load_tile(float* tile, const Element* p, const Place& at) {
    constexpr int QUADS = C / 4;
#pragma unroll 4
    for (int i = threadIdx.x; i < HALO * QUADS; i += THREADS) {
        const int pixel = i / QUADS, quad = i % QUADS;
        const int row = at.row - 1 + pixel / WIDTH, column = at.column - 1 + pixel % WIDTH;
        const bool inside = unsigned(row) < unsigned(at.h) && unsigned(column) < unsigned(at.w);
        const float4 v = inside ? read4(p + (row * at.w + column) * P_PITCH + 4 * quad) : no_floats();
        store4(tile + pixel * PITCH + 4 * quad, make_float4(tf32(v.x), tf32(v.y), tf32(v.z), tf32(v.w)));
    }
}

// weight (DEPTHS · 8, COLUMNS) -> (DEPTHS, ceil(COLUMNS / 8), 32, 2), each pair as a warp's thread holds it
template <int DEPTHS, int COLUMNS> DEVICE void load_weights(float* to, const float* weight, int lane, int warp) {
    constexpr int ACROSS = ceil_div(COLUMNS, 8);
#pragma unroll 4
    for (int i = warp; i < DEPTHS * ACROSS; i += WARPS) {
        const int column = i % ACROSS * 8 + lane / 4;
        const float* const from = weight + (i / ACROSS * 8 + lane % 4) * COLUMNS + column;
        float2 v = make_float2(0.0f, 0.0f);
        if (COLUMNS % 8 == 0 || column < COLUMNS) v = make_float2(tf32(from[0]), tf32(from[4 * COLUMNS]));
        *reinterpret_cast<float2*>(to + (i * 32 + lane) * 2) = v;
    }
}

// Sixteen rows of eight numbers, at pitch PITCH, times b
DEVICE void product(float (&d)[4], const float* upper, const float* lower, float2 b) {
    multiply_tf32(d, upper[0], lower[0], upper[4], lower[4], b.x, b.y);
}

// The offsets of the warp's pixels -> m.offsets
DEVICE void find_offsets(const Memory& m, const float* bias, int lane, int warp) {
    const int g = lane / 4, t = lane % 4;
    float sums[2][FIRST][4];
#pragma unroll
    for (int n = 0; n < FIRST; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int offset = 8 * n + 2 * t + i % 2;
            sums[0][n][i] = sums[1][n][i] = offset < OFFSETS ? bias[offset] : 0.0f;
        }
    const float* const mine = m.tile + (2 * warp * WIDTH + g) * PITCH + t;
    const float2* weights = reinterpret_cast<const float2*>(m.weights) + lane;
#pragma unroll 3
    for (int tap = 0; tap < TAPS; tap++) {
        const float* from = mine + (tap / 3 * WIDTH + tap % 3) * PITCH;
#pragma unroll
        for (int eighth = 0; eighth < EIGHTS; eighth++, from += 8, weights += FIRST * 32)
#pragma unroll
            for (int row = 0; row < 2; row++)
#pragma unroll
                for (int n = 0; n < FIRST; n++) {
                    const float* const a = from + row * WIDTH * PITCH;
                    product(sums[row][n], a, a + 8 * PITCH, weights[n * 32]);
                }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)  // row, and which eight of its pixels
#pragma unroll
        for (int n = 0; n < FIRST; n++) {
            const float* const pair = sums[i / 2][n] + i % 2 * 2;
            float* const to = m.offsets + (i * 8 + g) * OFFSETS + 8 * n + 2 * t;
            if (8 * n + 2 * t < OFFSETS) *reinterpret_cast<float2*>(to) = make_float2(pair[0], pair[1]);
        }
}

// CH channels of a pixel
DEVICE void read_channels(float (&v)[CH], const Element* from, bool inside) {
    const uint4 bits = inside ? *reinterpret_cast<const uint4*>(from) : uint4{0u, 0u, 0u, 0u};
    const float2 a = two_floats(bits.x), b = two_floats(bits.y), c = two_floats(bits.z), d = two_floats(bits.w);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y, v[4] = c.x, v[5] = c.y, v[6] = d.x, v[7] = d.y;
}

// The larger of both, and NaN if one is.
DEVICE float larger(float a, float b) {
#ifdef EMULATED
    return a != a || a > b ? a : b;
#else
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
#endif
}

// Whether every sample of the pixel at (row, column) lies between four pixels of the image
DEVICE bool lies_within(const float* offsets, int row, int column, const Place& at) {
    float down = 0.0f, right = 0.0f;
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        const float2 moved = *reinterpret_cast<const float2*>(offsets + 2 * tap);
        down = larger(down, fabsf(moved.x)), right = larger(right, fabsf(moved.y));
    }
    return float(min(row, at.h - 1 - row) - 2) >= down && float(min(column, at.w - 1 - column) - 2) >= right;
}

// One pixel's samples of CH channels, weighted; p begins at the channels. The pixel lies at (row, column).
template <bool WITHIN> DEVICE void sampled(
    float (&total)[CH], const Element* p, const float* offsets, const float* taps, int row, int column, const Place& at
) {
#pragma unroll
    for (int i = 0; i < CH; i++) total[i] = 0.0f;
#pragma unroll 1
    for (int across = 0; across < 3; across++)
#pragma unroll
        for (int aside = 0; aside < 3; aside++) {
            const int tap = across * 3 + aside;
            const float2 moved = *reinterpret_cast<const float2*>(offsets + 2 * tap);
            const float y = float(row + across - 1) + moved.x, x = float(column + aside - 1) + moved.y;
            // The whole number at most a half from y - ½, by adding 1.5 · 2^23; at a whole y it may be y - 1: then
            // the part below is 1, and the sample the same. Far away and for NaN it is no row of any image either.
            const float high = y - 0.5f + 12582912.0f, wide = x - 0.5f + 12582912.0f;
            const int i = __float_as_int(high) - 0x4b400000, j = __float_as_int(wide) - 0x4b400000;
            const float down = y - (high - 12582912.0f), right = x - (wide - 12582912.0f);
            const bool above = WITHIN || unsigned(i) < unsigned(at.h), below = WITHIN || unsigned(i + 1) < unsigned(at.h);
            const bool before = WITHIN || unsigned(j) < unsigned(at.w), after = WITHIN || unsigned(j + 1) < unsigned(at.w);
            const Element* const from = p + int((unsigned(i) * at.w + j) * P_PITCH);
            const Element* const under = from + at.w * P_PITCH;
            float a[CH], b[CH], c[CH], d[CH];
            read_channels(a, from, above && before);
            read_channels(b, from + P_PITCH, above && after);
            read_channels(c, under, below && before);
            read_channels(d, under + P_PITCH, below && after);
            const float up = 1.0f - down, ahead = 1.0f - right;
            const float at_a = up * ahead, at_b = up * right, at_c = down * ahead, at_d = down * right;
#pragma unroll
            for (int k = 0; k < CH; k++) {
                const float value = fmaf(at_d, d[k], fmaf(at_c, c[k], fmaf(at_b, b[k], at_a * a[k])));
                total[k] = fmaf(taps[tap * C + k], value, total[k]);
            }
        }
}

// x · Φ(x) to 2e-7 of x. erf as in Abramowitz and Stegun, 7.1.26.
DEVICE float quick_gelu(float x) {
    const float s = fabsf(x) * 0.70710678f, t = __fdividef(1.0f, fmaf(0.3275911f, s, 1.0f));
    float p = fmaf(t, 1.061405429f, -1.453152027f);
    p = fmaf(t, p, 1.421413741f);
    p = fmaf(t, p, -0.284496736f);
    p = t * fmaf(t, p, 0.254829592f);
    const float tail = 0.5f * p * __expf(-s * s);  // Φ(-|x|)
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

DEVICE float2 read2(const Element* p) { return two_floats(*reinterpret_cast<const unsigned*>(p)); }

DEVICE void write2(Element* p, float2 v) {
    *reinterpret_cast<unsigned*>(p) = rounded(v.x) | rounded(v.y) << 16;
}

// p, f, m (b, h, w, their pitch; m may be null); offset_weight (9, C, 18), weight (C, 9), balance (C, C), input first
// -> e (b, h, w, C). The grid is (tiles of an image, 1, images).
KERNEL __launch_bounds__(THREADS, RESIDENT) deform_block(
    const Element* p, const Element* f, int f_pitch, const Element* added, int added_pitch,
    const float* offset_weight, const float* offset_bias, const float* weight,
    const float* balance_weight, const float* balance_bias, Element* e, int h, int w
) {
    SHARED(float, shared);
    const Memory m = memory_of(shared);
    const int columns = ceil_div(w, TILE_W), row_of_tile = blockIdx.x / columns;
    const Place at = {row_of_tile * TILE_H, int(blockIdx.x - row_of_tile * columns) * TILE_W, h, w};
    const size_t image = size_t(blockIdx.z) * h * w;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    p += image * P_PITCH;
    load_tile(m.tile, p, at);
    load_weights<STEPS, OFFSETS>(m.weights, offset_weight, lane, warp);
    load_weights<EIGHTS, C>(m.balance, balance_weight, lane, warp);
    for (int i = threadIdx.x; i < TAPS * C; i += THREADS) m.taps[i] = weight[i % C * TAPS + i / C];
    __syncthreads();

    find_offsets(m, offset_bias, lane, warp);
    __syncthreads();
#pragma unroll 1
    for (int i = lane; i < MINE * GROUPS; i += 32) {
        const int pixel = i / GROUPS, channel = i % GROUPS * CH;
        const int row = at.row + 2 * warp + pixel / TILE_W, column = at.column + pixel % TILE_W;
        float q[CH];
        const float* const offsets = m.offsets + pixel * OFFSETS;
        if (__all_sync(~0u, lies_within(offsets, row, column, at)))
            sampled<true>(q, p + channel, offsets, m.taps + channel, row, column, at);
        else
            sampled<false>(q, p + channel, offsets, m.taps + channel, row, column, at);
#pragma unroll
        for (int k = 0; k < CH; k += 4)
            store4(m.samples + pixel * PITCH + channel + k, make_float4(tf32(q[k]), tf32(q[k + 1]), tf32(q[k + 2]), tf32(q[k + 3])));
    }
    __syncwarp();
    const int g = lane / 4, t = lane % 4;
    const float2* const balance = reinterpret_cast<const float2*>(m.balance) + lane;
#pragma unroll 1
    for (int n = 0; n < EIGHTS; n++)
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const int channel = 8 * n + 2 * t;
            const float2 bias = *reinterpret_cast<const float2*>(balance_bias + channel);
            float d[4] = {bias.x, bias.y, bias.x, bias.y};
#pragma unroll
            for (int k = 0; k < EIGHTS; k++) {
                const float* const from = m.samples + (16 * row + g) * PITCH + 8 * k + t;
                product(d, from, from + 8 * PITCH, balance[(k * EIGHTS + n) * 32]);
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int y = at.row + 2 * warp + row, x = at.column + 8 * half + g;
                if (y >= h || x >= w) continue;
                const size_t place = image + y * w + x;
                const float2 gate = read2(f + place * f_pitch + channel);
                float2 v = make_float2(
                    fmaf(quick_gelu(d[2 * half]), gate.x, gate.x), fmaf(quick_gelu(d[2 * half + 1]), gate.y, gate.y)
                );
                if (added) {
                    const float2 more = read2(added + place * added_pitch + channel);
                    v.x += more.x, v.y += more.y;
                }
                write2(e + place * C + channel, v);
            }
        }
}
