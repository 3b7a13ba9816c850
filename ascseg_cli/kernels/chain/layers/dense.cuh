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

// V numbers at `to[at]`. Counted in float4, the compiler sees that four stores can be one.
template <int V> DEVICE void keep(float* to, unsigned at, const float (&v)[V]) {
    if constexpr (V == 4) reinterpret_cast<float4*>(to)[at / 4] = make_float4(v[0], v[1], v[2], v[3]);
    else to[at] = v[0];
}

// Three rows of `entries` numbers, one a channel, that a source's `value` wants; those of V channels.
template <int V> struct Entries {
    float p[V], q[V], r[V];
    DEVICE Entries(const float* table, int entries, int channel) {
        fetch<V>(p, table + channel);
        fetch<V>(q, table + entries + channel);
        fetch<V>(r, table + 2 * entries + channel);
    }
};

// `put(row, column, channel, values)` for every V channels of a rectangle of an image, of DEEP from `first` on;
// zero outside the image and from channel `limit` on. Several loads are under way before the first is used.
template <int V, int TALL, int WIDE, int DEEP, int TEAM, class Source, class Put>
DEVICE void load_tile(
    const Source& source, const float* table, int entries, int first, int limit, int y0, int x0, int h, int w, Put put
) {
    constexpr unsigned EACH = DEEP / V, TOTAL = TALL * WIDE * EACH, AT_ONCE = Source::TWO ? 2 : 4;
    constexpr bool FIXED = TEAM % EACH == 0;  // a thread loads the same channels of every pixel
    constexpr bool KEPT = FIXED && Source::CHANGED;  // else nothing that means anything is read
    const Entries<V> own(table, KEPT ? entries : 0, KEPT ? first + threadIdx.x % EACH * V : 0);
    for (unsigned begin = threadIdx.x; begin < TOTAL; begin += TEAM * AT_ONCE) {
        float a[AT_ONCE][V], b[AT_ONCE][V];
        bool inside[AT_ONCE];
#pragma unroll
        for (unsigned i = 0; i < AT_ONCE; i++) {
            const unsigned e = begin + i * TEAM, pixel = e / EACH, c = (FIXED ? threadIdx.x : e) % EACH * V;
            const int y = y0 + int(pixel / WIDE), x = x0 + int(pixel % WIDE);
            inside[i] = e < TOTAL && first + int(c) < limit && unsigned(y) < unsigned(h) && unsigned(x) < unsigned(w);
            if (inside[i]) {
                fetch<V>(a[i], source.x + ((y * w + x) * source.pitch + first + int(c)));
                if constexpr (Source::TWO)
                    fetch<V>(b[i], source.second + ((y * w + x) * source.second_pitch + first + int(c)));
            }
        }
#pragma unroll
        for (unsigned i = 0; i < AT_ONCE; i++) {
            const unsigned e = begin + i * TEAM, pixel = e / EACH, c = (FIXED ? threadIdx.x : e) % EACH * V;
            if (e >= TOTAL) continue;
            float v[V] = {};
            if (inside[i]) {
                if constexpr (Source::CHANGED) {
                    const Entries<V> n = FIXED ? own : Entries<V>(table, entries, first + int(c));
#pragma unroll
                    for (int k = 0; k < V; k++)
                        v[k] = source.value(a[i][k], Source::TWO ? b[i][k] : 0.0f, n.p[k], n.q[k], n.r[k]);
                } else {
#pragma unroll
                    for (int k = 0; k < V; k++) v[k] = a[i][k];
                }
            }
            put(pixel / WIDE, pixel % WIDE, c, v);
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
