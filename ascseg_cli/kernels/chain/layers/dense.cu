// The dense convolution, forward: y = conv(activation(normalised x)) + bias, with sums for the statistics of y.
// Constants beside the tile's: ACTIVATION, NORMED; BATCH: sums are wanted.
#include "dense_tile.cuh"

// Σ z and Σ z² of a thread's pixels, about the first of them so that a large mean costs no digits.
DEVICE double2 sums_of(const float (&sum)[PX][OWN], int o, int pixels) {
    const float pivot = sum[0][o];
    float first = 0.0f, second = 0.0f;
#pragma unroll
    for (int p = 1; p < PX; p++) {
        const float d = p < pixels ? sum[p][o] - pivot : 0.0f;
        first += d;
        second = fmaf(d, d, second);
    }
    const double a = first, m = pixels > 0 ? pivot : 0.0f, mean = pixels * m;
    return make_double2(a + mean, second + m * (2.0 * a + mean));
}

// x (b, h, w, IN) with `pitch`; weight (OUT, IN, K, K); bias (OUT) or null; y (b, h, w, OUT)
// partials (blocks, 2, OUT): Σ (y − bias), Σ (y − bias)²
KERNEL __launch_bounds__(THREADS, resident(THREADS, K > 3 || DILATION > 1 ? 16 : 20)) dense_forward(
    const float* __restrict__ x, int pitch, const float* statistics, const float* norm_weight, const float* norm_bias,
    float eps, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y,
    double* partials, int h, int w
) {
    SHARED(float, base);
    const Memory memory(base);
    const Place me(h, w);
    if constexpr (NORMED) norm_table(memory.table, ENTRIES, statistics, norm_weight, norm_bias, eps, IN);
    const Activated<ACTIVATION, NORMED> source{x + size_t(me.image) * h * w * pitch, pitch, nullptr, 0};
    float sum[PX][OWN];
    convolve<false>(sum, source, weight, memory, me, h, w);
    const int across = ceil_div(w - me.x, DILATION), pixels = me.y < h ? min(max(across, 0), PX) : 0;
    if constexpr (BATCH) {
        double sums[SUMS] = {};
        if (me.split == 0)
#pragma unroll
            for (int o = 0; o < OWN; o++) {
                const double2 s = sums_of(sum, o, pixels);
                sums[o] = s.x, sums[SUMS / 2 + o] = s.y;
            }
        store_sums(sums, partials, memory, me);
    }
#pragma unroll
    for (int o = 0; o < OWN; o++) {
        const float added = bias && me.channel + o < OUT ? bias[me.channel + o] : 0.0f;
#pragma unroll
        for (int p = 0; p < PX; p++) sum[p][o] += added;
    }
    store_tile(sum, y + size_t(me.image) * h * w * OUT, memory, me, h, w);
}
