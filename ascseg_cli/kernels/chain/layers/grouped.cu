// A convolution in which each channel of y has G channels of x of its own: y = conv(activation(normed x)) + bias.
// Grid: tiles of all images · groups of units. X_VEC, Y_VEC: channels that can be loaded or stored at once.
#include "grouped.cuh"

// partials (tiles, 2, co): sums of y − bias and of its square, if not null
KERNEL __launch_bounds__(T, 768 / T) grouped(
    const float* __restrict__ x, int pitch, const float* statistics, const float* norm_weight, const float* norm_bias,
    float eps, const float* __restrict__ weight, const float* bias, float* __restrict__ y,
    double* __restrict__ partials, int h, int w, int co
) {
    SHARED(float4, tile);
    float4* const weights = tile + TILE;
    const Place at = place_of(h, w);
    const int ci = co * G, unit = at.first_unit + at.unit;
    x += size_t(at.image) * h * w * pitch;
    y += size_t(at.image) * h * w * co;

    const Norms norms = norms_of(statistics, norm_weight, norm_bias, eps, ci, unit);
    const auto load = [&](int pixel) { return load_channels<INS, X_VEC>(x + pixel * pitch, unit * INS, ci); };
    fill_tile(tile, at, h, w, load, [&](float4 v) { return activate4<ACTIVATION>(NORMED ? norms(v) : v); });
    fill_weights<false>(weights, weight, at.first_unit, ci);
    __syncthreads();

#if G == 1
    float4 sums[S];
#else
    float sums[S];
#endif
    correlate(tile, weights, at, sums);

    float shift[OUTS], moments[2 * OUTS] = {};
#pragma unroll
    for (int i = 0; i < OUTS; i++) shift[i] = bias ? bias[min(unit * OUTS + i, co - 1)] : 0.0f;
#pragma unroll
    for (int s = 0; s < S; s++) {
        const int row = at.top + at.row + s, column = at.left + at.column;
        if (row >= h || column >= w) continue;
        float* const pixel = y + (row * w + column) * co;
#if G == 1
        const float values[4] = {sums[s].x, sums[s].y, sums[s].z, sums[s].w};
        store_channels<4, Y_VEC>(
            pixel, unit * 4, co,
            make_float4(values[0] + shift[0], values[1] + shift[1], values[2] + shift[2], values[3] + shift[3])
        );
#else
        const float values[1] = {sums[s]};
        if (unit < co) pixel[unit] = sums[s] + shift[0];
#endif
#pragma unroll
        for (int i = 0; i < OUTS; i++) {
            moments[2 * i] += values[i];
            moments[2 * i + 1] = fmaf(values[i], values[i], moments[2 * i + 1]);
        }
    }
    if (!BATCH) return;
    sum_units(moments, reinterpret_cast<float*>(tile), [&](int value, int u, double total) {
        const int channel = (at.first_unit + u) * OUTS + value / 2;
        if (channel < co) partials[(size_t(blockIdx.x) * 2 + value % 2) * co + channel] = total;
    });
}
