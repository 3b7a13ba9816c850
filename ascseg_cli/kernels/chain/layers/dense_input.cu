// The gradient of the dense convolution's input: a convolution of the output's gradient with transposed weights,
// then back through the activation and the norm. IN is the layer's output channels, OUT its input channels.
// Constants beside the tile's: ACTIVATION, NORMED; BATCH: the output's statistics have a gradient;
// SUMMED: sums for the norm's gradients are wanted; X_VEC: channels of x loaded at once.
#include "dense_tile.cuh"

// dy (b, h, w, IN) with `pitch`; z (b, h, w, IN), out_statistics, dstatistics (2, IN) if BATCH; weight (IN, OUT, K, K)
// x (b, h, w, OUT) with `x_pitch`; statistics (2, OUT) and the norm's weight, bias (OUT) if NORMED
// dx (b, h, w, OUT); partials (blocks, 2, OUT): Σ g, Σ g · (x − mean)
KERNEL __launch_bounds__(THREADS, resident(THREADS, 16)) dense_input_gradient(
    const float* __restrict__ dy, int pitch, const float* __restrict__ z, const float* out_statistics,
    const float* dstatistics, float count, const float* __restrict__ weight, const float* __restrict__ x, int x_pitch,
    const float* statistics, const float* norm_weight, const float* norm_bias, float eps, float* __restrict__ dx,
    double* partials, int h, int w
) {
    SHARED(float, base);
    const Memory memory(base);
    const Place me(h, w);
    if constexpr (BATCH) statistics_table(memory.table, ENTRIES, out_statistics, dstatistics, count, IN);
    const size_t image = size_t(me.image) * h * w;
    const OutputGradient<BATCH> source{dy + image * pitch, pitch, z + image * IN, IN};
    float sum[PX][OWN];
    convolve<true>(sum, source, weight, memory, me, h, w);
    const int across = ceil_div(w - me.x, DILATION), pixels = me.y < h ? min(max(across, 0), PX) : 0;
    double sums[SUMS] = {};
    if (me.split == 0) {
        const int at = me.y * w + me.x;
        Norm norm[OWN];
        float first[OWN] = {}, second[OWN] = {};
        if constexpr (NORMED)
#pragma unroll
            for (int o = 0; o < OWN; o++)
                norm[o] = norm_of(statistics, norm_weight, norm_bias, eps, OUT, min(me.channel + o, OUT - 1));
#pragma unroll
        for (int p = 0; p < PX; p++) {
            if (p >= pixels) break;
            if constexpr (NORMED || ACTIVATION != NONE) {
                float v[OWN];
                load_own(v, x + image * x_pitch + (at + p * DILATION) * x_pitch + me.channel, me.channel, X_VEC);
#pragma unroll
                for (int o = 0; o < OWN; o++) {
                    const float g = sum[p][o] * slope<ACTIVATION>(NORMED ? normed(v[o], norm[o]) : v[o]);
                    sum[p][o] = NORMED ? g * norm[o].scale : g;
                    if constexpr (SUMMED) {
                        first[o] += g;
                        second[o] = fmaf(g, v[o] - norm[o].mean, second[o]);
                    }
                }
            }
        }
#pragma unroll
        for (int o = 0; o < OWN; o++) sums[o] = first[o], sums[SUMS / 2 + o] = second[o];
    }
    store_tile(sum, dx + image * OUT, memory, me, h, w);
    if constexpr (SUMMED) {
        __syncthreads();
        store_sums(sums, partials, memory, me);
    }
}
