// The end of sums over pixels, whatever they are of.
#pragma once
#include "device.cuh"

// The sum of numbers that lie `stride` apart, by the whole block, in every thread of the first warp.
DEVICE double total_of(const double* first, int count, size_t stride, double* scratch) {
    double total = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) total += first[i * stride];
    return block_sum(total, scratch);
}
