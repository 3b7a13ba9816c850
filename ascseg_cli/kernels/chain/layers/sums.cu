// Sums that every block left, added up in a fixed order.
#include "sums.cuh"

// shares (images, blocks, numbers) -> sums (images, numbers); a block of threads for each of a grid (numbers, images)
KERNEL finish_sums(const double* shares, int blocks, int numbers, float* sums) {
    SHARED(double, scratch);
    const double* first = shares + size_t(blockIdx.y) * blocks * numbers + blockIdx.x;
    const double total = total_of(first, blocks, numbers, scratch);
    if (threadIdx.x == 0) sums[size_t(blockIdx.y) * numbers + blockIdx.x] = float(total);
}
