// The sum over slabs: partials (slabs, n) -> result (all), in a fixed order, in double; zeros from n on.
// A block of 16 warps adds 32 numbers; each warp every sixteenth slab.
#include "device.cuh"

KERNEL add_slabs(const float* __restrict__ partials, int slabs, int n, int all, float* __restrict__ result) {
    SHARED(double, scratch);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = blockIdx.x * 32 + lane;
    double total = 0.0;
    if (at < n) {
#pragma unroll 8
        for (int slab = warp; slab < slabs; slab += 16) total += partials[size_t(slab) * n + at];
    }
    scratch[threadIdx.x] = total;
    __syncthreads();
    if (warp > 0 || at >= all) return;
    for (int w = 1; w < 16; w++) total += scratch[w * 32 + lane];
    result[at] = float(total);
}
