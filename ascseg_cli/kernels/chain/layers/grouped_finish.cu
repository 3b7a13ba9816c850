// The last step of the gradients of a grouped convolution's weights and bias.
#include "device.cuh"

// partials (blocks, ci, taps + biased) -> dweight (ci, taps), dbias (ci / g); 32 numbers a block, 32 threads each
KERNEL finish_weights(
    const double* partials, int blocks, int ci, int taps, int g, int biased, float* dweight, float* dbias
) {
    SHARED(double, sums);
    const int numbers = ci * (taps + biased), lane = threadIdx.x % 32, slice = threadIdx.x / 32;
    const int i = blockIdx.x * 32 + lane;
    double total = 0.0;
    if (i < numbers)
#pragma unroll 4
        for (int block = slice; block < blocks; block += 32) total += partials[size_t(block) * numbers + i];
    sums[threadIdx.x] = total;
    __syncthreads();
    if (slice != 0 || i >= numbers) return;
    for (int other = 1; other < 32; other++) total += sums[other * 32 + lane];
    const int channel = i / (taps + biased), tap = i % (taps + biased);
    if (tap < taps) dweight[channel * taps + tap] = float(total);
    else if (channel % g == 0) dbias[channel / g] = float(total);
}
