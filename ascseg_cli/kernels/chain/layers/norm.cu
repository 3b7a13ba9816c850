// The last step of sums over pixels: partial sums of all blocks, added in a fixed order, to statistics or gradients.
// One block of threads for each channel.
#include "norm.cuh"

// Two sums of one channel over all blocks, in thread 0; partials (blocks, 2, c), scratch two numbers a warp.
DEVICE double2 summed(const double* partials, int blocks, int c, int i, double* scratch) {
    double first = 0.0, second = 0.0;
#pragma unroll 4
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) {
        const double* at = partials + size_t(block) * 2 * c + i;
        first += at[0];
        second += at[c];
    }
    first = warp_sum(first);
    second = warp_sum(second);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) scratch[2 * warp] = first, scratch[2 * warp + 1] = second;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < blockDim.x / 32; w++) first += scratch[2 * w], second += scratch[2 * w + 1];
    return make_double2(first, second);
}

// partials: Σ (z − pivot), Σ (z − pivot)²  ->  statistics (2, c); running values move by `momentum` as torch's do
KERNEL finish_statistics(
    const double* partials, int blocks, int c, float count, const float* pivot, float* statistics,
    float* running_mean, float* running_var, float momentum
) {
    SHARED(double, scratch);
    const int i = blockIdx.x;
    const double2 sums = summed(partials, blocks, c, i, scratch);
    if (threadIdx.x != 0) return;
    const double offset = sums.x / count, mean = offset + (pivot ? pivot[i] : 0.0);
    const double variance = fmax(sums.y / count - offset * offset, 0.0);
    statistics[i] = float(mean);
    statistics[c + i] = float(variance);
    if (running_mean == nullptr) return;
    const double unbiased = variance * (double(count) / fmax(double(count) - 1.0, 1.0));
    running_mean[i] = float((1.0 - momentum) * running_mean[i] + momentum * mean);
    running_var[i] = float((1.0 - momentum) * running_var[i] + momentum * unbiased);
}

// partials: Σ g, Σ g·(z − mean)  ->  dstatistics (2, c), dweight (c), dbias (c); channel i
DEVICE void norm_gradients(
    const double* partials, int blocks, int c, int i, const float* statistics, const float* weight, float eps,
    float* dstatistics, float* dweight, float* dbias, double* scratch
) {
    const double2 sums = summed(partials, blocks, c, i, scratch);
    if (threadIdx.x != 0) return;
    const double inverse = rsqrt(double(statistics[c + i]) + eps), scale = weight[i] * inverse;
    dstatistics[i] = float(-scale * sums.x);
    dstatistics[c + i] = float(-0.5 * scale * inverse * inverse * sums.y);
    dweight[i] = float(inverse * sums.y);
    dbias[i] = float(sums.x);
}

KERNEL finish_gradients(
    const double* partials, int blocks, int c, const float* statistics, const float* weight, float eps,
    float* dstatistics, float* dweight, float* dbias
) {
    SHARED(double, scratch);
    norm_gradients(partials, blocks, c, blockIdx.x, statistics, weight, eps, dstatistics, dweight, dbias, scratch);
}

// The same for the first c blocks; the others add 32 numbers each over slabs (count, n) -> result (all), zeros from
// n on: a block of 16 warps, each warp every sixteenth slab.
KERNEL finish_layer(
    const double* partials, int blocks, int c, const float* statistics, const float* weight, float eps,
    float* dstatistics, float* dweight, float* dbias, const float* __restrict__ slabs, int count, int n, int all,
    float* __restrict__ result
) {
    SHARED(double, scratch);
    if (blockIdx.x < c) {
        norm_gradients(partials, blocks, c, blockIdx.x, statistics, weight, eps, dstatistics, dweight, dbias, scratch);
        return;
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = (blockIdx.x - c) * 32 + lane;
    double total = 0.0;
    if (at < n) {
#pragma unroll 8
        for (int slab = warp; slab < count; slab += 16) total += slabs[size_t(slab) * n + at];
    }
    scratch[threadIdx.x] = total;
    __syncthreads();
    if (warp > 0 || at >= all) return;
    for (int w = 1; w < 16; w++) total += scratch[w * 32 + lane];
    result[at] = float(total);
}
