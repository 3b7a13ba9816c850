// What the dense convolution's kernels share: tiles of an image, changed while they are loaded.
#pragma once
#include "norm.cuh"

// The layer's input: u = activation(normalised x), with the norm's (mean, scale, shift).
template <int A, bool N> struct Activated {
    static constexpr bool TWO = false, CHANGED = N || A != NONE;
    const float* x;
    int pitch;
    const float* second;
    int second_pitch;
    DEVICE float value(float z, float, float mean, float scale, float shift) const {
        return activate<A>(N ? fmaf(z - mean, scale, shift) : z);
    }
};

// The gradient of the layer's raw output z, that of its statistics included: (mean, direct, slope).
template <bool S> struct OutputGradient {
    static constexpr bool TWO = S, CHANGED = S;
    const float* x;
    int pitch;
    const float* second;
    int second_pitch;
    DEVICE float value(float dy, float z, float mean, float direct, float slope) const {
        return dy + (direct + slope * (z - mean));
    }
};

// Blocks that a multiprocessor shall hold at a time, of so many threads, for about `warps` in all.
constexpr int resident(int threads, int warps) {
    return warps / ((threads + 31) / 32) > 1 ? warps / ((threads + 31) / 32) : 1;
}

template <int V> DEVICE void fetch(float (&to)[V], const float* from) {
    if constexpr (V == 4) {
        const float4 v = load4(from);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
        to[0] = *from;
    }
}

template <int V> DEVICE void keep(float* to, const float (&v)[V]) {
    if constexpr (V == 4) store4(to, make_float4(v[0], v[1], v[2], v[3]));
    else *to = v[0];
}

// `put(row, column, channel, values)` for every V channels of a rectangle of an image, of DEEP from `first`;
// zero outside the image and from channel `limit` on.
// table  three rows of `entries` numbers, one a channel, that the source's `value` wants
template <int V, int TALL, int WIDE, int DEEP, int TEAM, class Source, class Put>
DEVICE void load_tile(
    const Source& source, const float* table, int entries, int first, int limit, int y0, int x0, int h, int w, Put put
) {
    constexpr int EACH = DEEP / V, TOTAL = TALL * WIDE * EACH, AT_ONCE = Source::TWO ? 2 : 4;
    for (int begin = threadIdx.x; begin < TOTAL; begin += TEAM * AT_ONCE) {
        float a[AT_ONCE][V], b[AT_ONCE][V];
        bool inside[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int e = begin + i * TEAM, c = first + e % EACH * V;
            const int y = y0 + e / EACH / WIDE, x = x0 + e / EACH % WIDE;
            inside[i] = e < TOTAL && c < limit && unsigned(y) < unsigned(h) && unsigned(x) < unsigned(w);
            if (inside[i]) {
                fetch<V>(a[i], source.x + (y * w + x) * source.pitch + c);
                if constexpr (Source::TWO) fetch<V>(b[i], source.second + (y * w + x) * source.second_pitch + c);
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int e = begin + i * TEAM, c = e % EACH * V;
            if (e >= TOTAL) break;
            float v[V];
            if constexpr (Source::CHANGED) {
                const float* at = table + first + c;
                float p[V], q[V], r[V];
                fetch<V>(p, at);
                fetch<V>(q, at + entries);
                fetch<V>(r, at + 2 * entries);
#pragma unroll
                for (int n = 0; n < V; n++)
                    v[n] = inside[i] ? source.value(a[i][n], Source::TWO ? b[i][n] : 0.0f, p[n], q[n], r[n]) : 0.0f;
            } else {
#pragma unroll
                for (int n = 0; n < V; n++) v[n] = inside[i] ? a[i][n] : 0.0f;
            }
            put(e / EACH / WIDE, e / EACH % WIDE, c, v);
        }
    }
}

// The norm's mean, scale and shift of c channels; rows of `entries` in shared memory.
DEVICE void norm_table(
    float* table, int entries, const float* statistics, const float* weight, const float* bias, float eps, int c
) {
    for (int i = threadIdx.x; i < entries; i += blockDim.x) {
        const Norm n = i < c ? norm_of(statistics, weight, bias, eps, c, i) : Norm{0.0f, 0.0f, 0.0f};
        table[i] = n.mean, table[entries + i] = n.scale, table[2 * entries + i] = n.shift;
    }
}

DEVICE void statistics_table(
    float* table, int entries, const float* statistics, const float* dstatistics, float count, int c
) {
    for (int i = threadIdx.x; i < entries; i += blockDim.x) {
        const FromStatistics s = from_statistics(statistics, i < c ? dstatistics : nullptr, c, i, count);
        table[i] = s.mean, table[entries + i] = s.direct, table[2 * entries + i] = s.slope;
    }
}

// The sums of N numbers a thread over a warp, N = 2, 4, 8, 16 or 32, with N + log(32 / N) exchanges:
// lane n · 32/N gets the sum of v[n], and so do those after it up to the next.
template <int N, int BIT = 16> DEVICE double warp_sums(double (&v)[N]) {
    double half[N > 1 ? N / 2 : 1];
    if constexpr (N > 1) {
        const bool upper = threadIdx.x & BIT;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const double give = upper ? v[i] : v[i + N / 2], kept = upper ? v[i + N / 2] : v[i];
            half[i] = kept + __shfl_xor_sync(0xffffffffu, give, BIT);
        }
    } else {
        half[0] = v[0] + __shfl_xor_sync(0xffffffffu, v[0], BIT);
    }
    if constexpr (BIT > 1) return warp_sums<sizeof(half) / sizeof(double), BIT / 2>(half);
    else return half[0];
}
