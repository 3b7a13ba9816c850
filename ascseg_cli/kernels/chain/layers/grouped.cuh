// What the kernels of a grouped convolution share: tiles in shared memory, taps from registers, sums over a block.
//
// A unit is what a thread works on: four channels of a depthwise convolution (G = 1), else the G ≤ 4 channels of x
// of one channel of y. Units lie innermost, so that a warp's loads and stores are contiguous and without conflicts.
//
// K taps a side · G · UNITS a block · TX columns a block · S rows a thread, below each other
#pragma once
#include "norm.cuh"

constexpr int INS = G == 1 ? 4 : G, OUTS = G == 1 ? 4 : 1;  // channels of x and of y in a unit
constexpr int TAPS = K * K, COLUMNS_AT_ONCE = K > 3 ? 1 : K;
constexpr int TY = 4, T = UNITS * TX * TY;
constexpr int ROWS = TY * S, COLUMNS = TX + K - 1, TILE = (ROWS + K - 1) * COLUMNS * UNITS;

// Where a block and a thread stand.
struct Place {
    int image, top, left;  // of the block's pixels, without the halo
    int first_unit, unit, column, row;  // unit, column and first row of the thread, inside the block
};

DEVICE Place place_of(int h, int w) {
    const int across = ceil_div(w, TX), down = ceil_div(h, ROWS);
    const int tile = blockIdx.x % (across * down), i = threadIdx.x;
    return {
        int(blockIdx.x / (across * down)), tile / across * ROWS, tile % across * TX,
        int(blockIdx.y) * UNITS, i % UNITS, i / UNITS % TX, i / (UNITS * TX) * S
    };
}

// COUNT channels of a pixel from `first` on; beyond the last channel it is repeated, and the number never used.
template <int COUNT, int VEC> DEVICE float4 load_channels(const float* pixel, int first, int c) {
    if constexpr (COUNT == 4 && VEC == 4) return load4(pixel + min(first, c - 4));
    float4 v = make_float4(pixel[min(first, c - 1)], 0.0f, 0.0f, 0.0f);
    if constexpr (COUNT > 1) v.y = pixel[min(first + 1, c - 1)];
    if constexpr (COUNT > 2) v.z = pixel[min(first + 2, c - 1)];
    if constexpr (COUNT > 3) v.w = pixel[min(first + 3, c - 1)];
    return v;
}

template <int COUNT, int VEC> DEVICE void store_channels(float* pixel, int first, int c, float4 v) {
    if constexpr (COUNT == 4 && VEC == 4) {
        if (first < c) store4(pixel + first, v);
        return;
    }
    if (first < c) pixel[first] = v.x;
    if (COUNT > 1 && first + 1 < c) pixel[first + 1] = v.y;
    if (COUNT > 2 && first + 2 < c) pixel[first + 2] = v.z;
    if (COUNT > 3 && first + 3 < c) pixel[first + 3] = v.w;
}

// A channel of y in a unit of its own, or four.
template <int VEC> DEVICE void load_outputs(float4& v, const float* pixel, int unit, int co) {
    v = load_channels<4, VEC>(pixel, 4 * unit, co);
}
template <int VEC> DEVICE void load_outputs(float& v, const float* pixel, int unit, int co) {
    v = pixel[min(unit, co - 1)];
}

struct Norms {
    Norm x, y, z, w;
    DEVICE float4 operator()(float4 v) const {
        return make_float4(normed(v.x, x), normed(v.y, y), normed(v.z, z), normed(v.w, w));
    }
};

// The norms of a unit's channels of x; those it doesn't have stay zero.
DEVICE Norms norms_of(const float* statistics, const float* weight, const float* bias, float eps, int ci, int unit) {
    const Norm none = {0.0f, 0.0f, 0.0f};
    Norms norms = {none, none, none, none};
    const auto norm = [&](int i) { return norm_of(statistics, weight, bias, eps, ci, min(unit * INS + i, ci - 1)); };
    norms.x = norm(0);
    if constexpr (INS > 1) norms.y = norm(1);
    if constexpr (INS > 2) norms.z = norm(2);
    if constexpr (INS > 3) norms.w = norm(3);
    return norms;
}

template <int ACT> DEVICE float4 activate4(float4 v) {
    return make_float4(activate<ACT>(v.x), activate<ACT>(v.y), activate<ACT>(v.z), activate<ACT>(v.w));
}

template <typename V> DEVICE V zero();
template <> DEVICE float zero<float>() { return 0.0f; }
template <> DEVICE float4 zero<float4>() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

// The block's pixels and their halo: finish(load(pixel)) inside the image, zero outside. Four loads fly at a time.
template <typename V, typename Load, typename Finish>
DEVICE void fill_tile(V* tile, const Place& at, int h, int w, Load load, Finish finish) {
    using Raw = decltype(load(0));
    for (int start = threadIdx.x; start < TILE; start += 4 * T) {
        Raw raw[4];
        bool inside[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int pixel = (start + j * T) / UNITS;
            const int row = at.top + pixel / COLUMNS - K / 2, column = at.left + pixel % COLUMNS - K / 2;
            inside[j] = row >= 0 && row < h && column >= 0 && column < w;
            raw[j] = load(min(max(row, 0), h - 1) * w + min(max(column, 0), w - 1));
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (start + j * T < TILE) tile[start + j * T] = inside[j] ? finish(raw[j]) : zero<V>();
    }
}

// weight (ci, K, K) -> [tap][unit], turned by half a turn if so wanted
template <bool TURNED> DEVICE void fill_weights(float4* weights, const float* weight, int first_unit, int ci) {
    for (int i = threadIdx.x; i < TAPS * UNITS * 4; i += T) {
        const int j = i % 4, unit = i / 4 % UNITS, tap = i / 4 / UNITS, channel = (first_unit + unit) * INS + j;
        const int source = TURNED ? TAPS - 1 - tap : tap;
        reinterpret_cast<float*>(weights)[i] = j < INS && channel < ci ? weight[channel * TAPS + source] : 0.0f;
    }
}

DEVICE void add(float4& sum, float4 v, float4 w) {
    sum.x = fmaf(v.x, w.x, sum.x);
    sum.y = fmaf(v.y, w.y, sum.y);
    sum.z = fmaf(v.z, w.z, sum.z);
    sum.w = fmaf(v.w, w.w, sum.w);
}
DEVICE void add(float& sum, float4 v, float4 w) {
    sum = fmaf(v.x, w.x, sum);
    if constexpr (INS > 1) sum = fmaf(v.y, w.y, sum);
    if constexpr (INS > 2) sum = fmaf(v.z, w.z, sum);
    if constexpr (INS > 3) sum = fmaf(v.w, w.w, sum);
}
DEVICE void add(float4& sum, float v, float4 w) { add(sum, make_float4(v, v, v, v), w); }

// The convolution at the thread's S pixels. Each number of the tile is read once for a column of taps, whose weights
// stay in registers: S + K − 1 loads for S·K products of a unit.
template <typename In, typename Out>
DEVICE void correlate(const In* tile, const float4* weights, const Place& at, Out (&sums)[S]) {
    tile += (at.row * COLUMNS + at.column) * UNITS + at.unit;
    weights += at.unit;
#pragma unroll
    for (int s = 0; s < S; s++) sums[s] = zero<Out>();
#pragma unroll COLUMNS_AT_ONCE
    for (int kx = 0; kx < K; kx++) {
        float4 column[K];
#pragma unroll
        for (int ky = 0; ky < K; ky++) column[ky] = weights[(ky * K + kx) * UNITS];
#pragma unroll
        for (int r = 0; r < S + K - 1; r++) {
            const In v = tile[(r * COLUMNS + kx) * UNITS];
#pragma unroll
            for (int ky = 0; ky < K; ky++)
                if (r - ky >= 0 && r - ky < S) add(sums[r - ky], v, column[ky]);
        }
    }
}

// Sums over all threads of a unit: write(value, unit inside the block, sum). scratch: VALUES · T numbers.
template <int VALUES, typename Write>
DEVICE void sum_units(const float (&values)[VALUES], float* scratch, Write write) {
    constexpr int SUMS = VALUES * UNITS, PARTS = T / SUMS < 32 ? T / SUMS : 32;
    __syncthreads();
#pragma unroll
    for (int v = 0; v < VALUES; v++) scratch[v * T + threadIdx.x] = values[v];
    __syncthreads();
    const int sum = threadIdx.x / PARTS, part = threadIdx.x % PARTS, value = sum / UNITS, unit = sum % UNITS;
    double total = 0.0;
    if (sum < SUMS)
        for (int i = part; i < T / UNITS; i += PARTS) total += scratch[value * T + i * UNITS + unit];
#pragma unroll
    for (int lane = PARTS / 2; lane > 0; lane /= 2) total += __shfl_xor_sync(0xffffffffu, total, lane);
    if (part == 0 && sum < SUMS) write(value, unit, total);
}
