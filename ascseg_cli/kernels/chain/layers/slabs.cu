// The last step of the gradients of a dense layer's weights: shares of all slabs of the batch, added in a fixed order.
#include "device.cuh"

// slabs (count, n) -> result (all), zeros from n on: 32 numbers a block of 16 warps, each warp every sixteenth slab
KERNEL add_slabs(const float* __restrict__ slabs, int count, int n, int all, float* __restrict__ result) {
    SHARED(double, scratch);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = blockIdx.x * 32 + lane;
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
