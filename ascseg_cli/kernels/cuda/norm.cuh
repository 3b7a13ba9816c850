// Batch normalisation while loading: u = γ·(z − μ)·rsqrt(v + eps) + β, and what its gradients need.
#pragma once
#include "device.cuh"

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
