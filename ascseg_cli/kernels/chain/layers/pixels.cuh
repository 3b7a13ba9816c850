// Pixels of channels-last images, VEC (4 or 1) channels a thread: consecutive threads take consecutive numbers of
// memory. A thread keeps its channels from pixel to pixel, so it can hold their norms and add up over pixels.
// The grid is (blocks of an image, 1, images); a thread takes at most 32 pixels, see `pixels.Launch`.
#pragma once
#include "norm.cuh"
#include "sums.cuh"

struct Numbers { float at[VEC]; };
struct Norms { Norm at[VEC]; };
struct FromAllStatistics { FromStatistics at[VEC]; };

DEVICE Numbers load(const float* p) {
#if VEC == 4
    const float4 v = load4(p);
    return {v.x, v.y, v.z, v.w};
#else
    return {*p};
#endif
}

DEVICE void store(float* p, Numbers v) {
#if VEC == 4
    store4(p, make_float4(v.at[0], v.at[1], v.at[2], v.at[3]));
#else
    *p = v.at[0];
#endif
}

template <typename F> DEVICE Numbers each(F of) {
    Numbers result;
    for (int j = 0; j < VEC; j++) result.at[j] = of(j);
    return result;
}

DEVICE Numbers all(float v) { return each([&](int) { return v; }); }

// Where a thread stands: its first channel, the pixel it begins with among `groups` of the block, and how far to step.
// Threads that are left over (the block is no multiple of a pixel's threads) are idle, but take part in sums.
struct Place { int channel, group, groups, begin, step; bool idle; };

DEVICE Place place_of(int c) {
    const int period = c / VEC, groups = blockDim.x / period, group = threadIdx.x / period;
    const int channel = (threadIdx.x - group * period) * VEC;
    return {channel, group, groups, int(blockIdx.x) * groups, int(gridDim.x) * groups, group >= groups};
}

DEVICE bool is_first(Place at) { return blockIdx.x == 0 && blockIdx.z == 0 && at.group == 0; }

// The block's row in a buffer of partial sums.
DEVICE size_t row_of_block() { return size_t(blockIdx.z) * gridDim.x + blockIdx.x; }

// Of c channels those from `channel` on; of one channel always that one.
DEVICE Norms norms_of(const float* statistics, const float* weight, const float* bias, float eps, int c, int channel) {
    Norms n;
    for (int j = 0; j < VEC; j++) n.at[j] = norm_of(statistics, weight, bias, eps, c, c == 1 ? 0 : channel + j);
    return n;
}

DEVICE FromAllStatistics
from_all_statistics(const float* statistics, const float* dstatistics, int c, int channel, float count) {
    FromAllStatistics s;
    for (int j = 0; j < VEC; j++) s.at[j] = from_statistics(statistics, dstatistics, c, channel + j, count);
    return s;
}

template <int ACT> DEVICE Numbers activated(Numbers z, const Norms& n) {
    return each([&](int j) { return activate<ACT>(normed(z.at[j], n.at[j])); });
}

// The gradient of z from g, that of the activated, normalised z; adds to the sums for the norm's own gradients.
template <int ACT> DEVICE Numbers through_norm(Numbers g, Numbers z, const Norms& n, float (&sums)[2][VEC]) {
    return each([&](int j) {
        const float centred = z.at[j] - n.at[j].mean;
        const float du = g.at[j] * slope<ACT>(fmaf(centred, n.at[j].scale, n.at[j].shift));
        sums[0][j] += du;
        sums[1][j] = fmaf(du, centred, sums[1][j]);
        return du * n.at[j].scale;
    });
}

// Sums about a pivot, for statistics.
DEVICE void add_about(Numbers pivot, Numbers v, float (&sums)[2][VEC]) {
    for (int j = 0; j < VEC; j++) {
        const float d = v.at[j] - pivot.at[j];
        sums[0][j] += d;
        sums[1][j] = fmaf(d, d, sums[1][j]);
    }
}

// Adds up the sums of all threads that share a channel, that is every `period`-th one; out[row * stride + channel].
// scratch: `pixels.Launch.scratch` bytes. Starts with a barrier.
template <int ROWS>
DEVICE void add_up(const float (&sums)[ROWS][VEC], int period, float* scratch, double* out, int stride) {
    const int groups = blockDim.x / period, group = threadIdx.x / period, slot = threadIdx.x - group * period;
    const int row = period * VEC, width = ROWS * row, segments = max(int(blockDim.x) / width, 1);
    double* const halfway = reinterpret_cast<double*>(scratch + (groups * width + 1) / 2 * 2);
    __syncthreads();
    for (int r = 0; r < ROWS && group < groups; r++)
        for (int j = 0; j < VEC; j++) scratch[group * width + r * row + slot * VEC + j] = sums[r][j];
    __syncthreads();
    for (int i = threadIdx.x; i < segments * width; i += blockDim.x) {
        double total = 0.0;
        for (int g = i / width; g < groups; g += segments) total += scratch[g * width + i % width];
        halfway[i] = total;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        double total = 0.0;
        for (int s = 0; s < segments; s++) total += halfway[s * width + i];
        out[i / row * stride + i % row] = total;
    }
}
