// Rows of numbers, each written by several blocks, added up by the last of all.
#include "last_block.cuh"

// values (rows.count, n) -> result (n); `ends` counts the blocks that took themselves for the last
KERNEL add_up_rows(const double* values, Rows rows, int n, double* result, int* ends) {
    SHARED(double, scratch);
    const size_t first = size_t(blockIdx.x) * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (i % rows.writers == blockIdx.y) rows.at[first + i] = values[first + i];
    if (!summed_by_last(rows, blockIdx.x, n, scratch)) return;
    for (int i = threadIdx.x; i < n; i += blockDim.x) result[i] = scratch[i];
    if (threadIdx.x == 0) atomicAdd(ends, 1);
}
