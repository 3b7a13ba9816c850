// Batch normalisation while loading: u = γ·(z − μ)·rsqrt(v + eps) + β, and what its gradients need.
#pragma once
#include "last_block.cuh"

// The factor and the shift of channel i; u = (z − mean) · scale + shift.
struct Norm { float mean, scale, shift; };

// statistics (2, c): means, then biased variances; null: nothing is normalised
DEVICE Norm norm_of(const float* statistics, const float* weight, const float* bias, float eps, int c, int i) {
    if (statistics == nullptr) return {0.0f, 1.0f, 0.0f};
    return {statistics[i], weight[i] / sqrtf(statistics[c + i] + eps), bias[i]};
}

DEVICE float normed(float z, Norm n) { return fmaf(z - n.mean, n.scale, n.shift); }

// What the statistics' gradients add to that of z: dz = dy + direct + slope · (z − mean).
struct FromStatistics { float mean, direct, slope; };

// statistics and their gradient (2, c) each, or null; over `count` = b·h·w numbers a channel
DEVICE FromStatistics from_statistics(const float* statistics, const float* dstatistics, int c, int i, float count) {
    if (dstatistics == nullptr) return {0.0f, 0.0f, 0.0f};
    return {statistics[i], dstatistics[i] / count, 2.0f * dstatistics[c + i] / count};
}

// `direct` isn't added to dy alone: that would round all of one size alike, and their sum would feel it.
DEVICE float with_statistics(float dy, float z, FromStatistics s) {
    return dy + fmaf(s.slope, z - s.mean, s.direct);
}

// What the last block makes of every block's Σ (z − pivot) and Σ (z − pivot)², rows of 2 · c; see `norm.py`.
struct StatisticsEnd {
    Rows rows;
    const float* pivot;                   // (c), or null for zeros
    float *statistics;                    // (2, c)
    float *running_mean, *running_var;    // move by `momentum` as torch's do; or null
    float momentum, count;
};

// Every thread comes here once row `row` is written; scratch: 2 · c + blockDim.x numbers.
DEVICE void end_statistics(const StatisticsEnd& end, int row, int c, double* scratch) {
    if (!summed_by_last(end.rows, row, 2 * c, scratch)) return;
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        const double offset = scratch[i] / end.count, mean = offset + (end.pivot ? __ldcg(end.pivot + i) : 0.0f);
        const double variance = fmax(scratch[c + i] / end.count - offset * offset, 0.0);
        end.statistics[i] = float(mean);
        end.statistics[c + i] = float(variance);
        if (end.running_mean == nullptr) continue;
        const double unbiased = variance * (double(end.count) / fmax(double(end.count) - 1.0, 1.0)), m = end.momentum;
        end.running_mean[i] = float((1.0 - m) * end.running_mean[i] + m * mean);
        end.running_var[i] = float((1.0 - m) * end.running_var[i] + m * unbiased);
    }
}

// What the last block makes of every block's Σ g and Σ g · (z − mean), rows of 2 · c.
struct NormEnd {
    Rows rows;
    float* result;  // (4, c): gradients of means, variances, weights and biases
};

// The gradients of one channel from both sums over all pixels, to `to`, `c` apart.
DEVICE void norm_gradients(double first, double second, float variance, float weight, float eps, float* to, int c) {
    const double inverse = rsqrt(double(variance) + eps), scale = weight * inverse;
    to[0] = float(-scale * first);
    to[c] = float(-0.5 * scale * inverse * inverse * second);
    to[2 * c] = float(inverse * second);
    to[3 * c] = float(first);
}

DEVICE void end_norm(
    const NormEnd& end, int row, int c, const float* statistics, const float* weight, float eps, double* scratch
) {
    if (!summed_by_last(end.rows, row, 2 * c, scratch)) return;
    for (int i = threadIdx.x; i < c; i += blockDim.x)
        norm_gradients(scratch[i], scratch[c + i], statistics[c + i], weight[i], eps, end.result + i, c);
}
