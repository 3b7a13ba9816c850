// Sums over blocks, finished by the kernel that made them: whichever block arrives last adds what all have left.
// It adds in the order of the rows, so the result doesn't depend on which block that is.
#pragma once
#include "device.cuh"

// Sums that blocks leave, as `last_block.py: Rows` has them.
struct Rows {
    double* at;         // (count, n), and behind them room for sums of each `together` rows
    unsigned* tickets;  // one for each `together` rows, and one more; zero, and zero again afterwards
    int count, together, writers;  // blocks that share a row
};

// Whether all other blocks have been here before; `count` blocks come. Starts with a barrier.
DEVICE bool arrives_last(unsigned* ticket, unsigned count) {
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicInc(ticket, count - 1) == count - 1;  // which makes it zero again
        __threadfence();
    }
    return __syncthreads_or(last);
}

// The sums of n columns of some rows, to scratch[0] and on; room for n + blockDim.x numbers. Ends with a barrier.
// What other blocks wrote is read past the first cache, which may hold what was there before.
DEVICE void add_rows(const double* from, int rows, int n, double* scratch) {
    for (int begin = 0; begin < n; begin += blockDim.x) {
        const int width = min(n - begin, int(blockDim.x)), slices = blockDim.x / width;
        const int column = threadIdx.x % width, slice = threadIdx.x / width;
        double total = 0.0;
        if (slice < slices)
#pragma unroll 8
            for (int row = slice; row < rows; row += slices) total += __ldcg(from + size_t(row) * n + begin + column);
        scratch[n + threadIdx.x] = total;
        __syncthreads();
        if (slice == 0) {
            for (int s = 1; s < slices; s++) total += scratch[n + s * width + column];
            scratch[begin + column] = total;
        }
        __syncthreads();
    }
}

// Every thread of every block comes here, after `row`, of n numbers, is written, or this block's share of it. True in
// one block, which has the sums in scratch[0] and on; room for n + blockDim.x numbers. Many rows are added in two steps.
DEVICE bool summed_by_last(const Rows& rows, int row, int n, double* scratch) {
    const int groups = ceil_div(rows.count, rows.together), group = row / rows.together;
    const int first = group * rows.together, size = min(rows.together, rows.count - first);
    if (!arrives_last(rows.tickets + group, size * rows.writers)) return false;
    add_rows(rows.at + size_t(first) * n, size, n, scratch);
    if (groups == 1) return true;
    double* const sums = rows.at + size_t(rows.count) * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sums[size_t(group) * n + i] = scratch[i];
    if (!arrives_last(rows.tickets + groups, groups)) return false;
    add_rows(sums, groups, n, scratch);
    return true;
}
