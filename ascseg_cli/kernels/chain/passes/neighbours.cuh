// What happens over neighbours in a tile of bfloat16, to the lines that a warp's threads hold as in `fragments.cuh`.
#pragma once
#include "fragments.cuh"

// ---- of the tile -------------------------------------------------------------------------------------------

// The pair of channels at a place of the tile, of those from 8n on
DEVICE unsigned pair_of_tile(const Place& place, int n, int line, int column) {
    return reinterpret_cast<const unsigned*>(place.tile + n * PLANE + line * COLUMNS + column)[threadIdx.x % 4];
}

template <int C, int M> DEVICE void of_tile(const Place& place, int top, int left, Lines<C, M>& v) {
    unsigned pairs[M][eighths(C)][2];
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int n = 0; n < eighths(C); n++)
            #pragma unroll
            for (int half = 0; half < 2; half++) {
                const Spot at = spot_of(top, left, m, half);
                pairs[m][n][half] = pair_of_tile(place, n, at.row + HALO, at.column + HALO);
            }
    spread_out<C, M>(pairs, v);
}

// The largest of the 3×3 neighbours inside the image.
template <int C, int M> DEVICE void largest(const Place& place, int top, int left, Lines<C, M>& v) {
    constexpr unsigned LOWEST = 0xff80ff80u;  // minus infinity, twice
    unsigned pairs[M][eighths(C)][2];
    #pragma unroll
    for (int n = 0; n < eighths(C); n++)
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            #pragma unroll
            for (int m = -1; m <= M; m++) {
                const Spot at = spot_of(top, left, m, half);
                const bool there = unsigned(place.top + at.row) < unsigned(place.h);
                unsigned most = LOWEST;
                #pragma unroll
                for (int aside = -1; aside <= 1; aside++) {
                    const bool inside = there && unsigned(place.left + at.column + aside) < unsigned(place.w);
                    const unsigned one = pair_of_tile(place, n, at.row + HALO, at.column + HALO + aside);
                    most = larger2(most, inside ? one : LOWEST);
                }
                #pragma unroll
                for (int line = m - 1; line <= m + 1; line++)
                    if (line >= 0 && line < M)
                        pairs[line][n][half] = line == m + 1 ? most : larger2(pairs[line][n][half], most);
            }
        }
    spread_out<C, M>(pairs, v);
}

// Each output has EACH inputs: eight outputs are a dense convolution of 8 · EACH inputs, most of whose weights are 0.
// Numbers: those of each such convolution.
template <int EACH, int C, int K, int D, int M>
DEVICE void by_eighths(const Place& place, int border, int top, int left, Lines<C, M>& v) {
    constexpr int NUMBERS = 8 + K * ((K * EACH + 1) / 2) * 64;
    Place part = place;
    #pragma unroll
    for (int n = 0; n < eighths(C); n++) {
        float sum[M][1][4];
        convolved<8 * EACH, 8, K, D, 0>(part, border, top, left, 0, sum);
        #pragma unroll
        for (int m = 0; m < M; m++)
            #pragma unroll
            for (int i = 0; i < 4; i++) v[m][n][i] = sum[m][0][i];
        part.tile += EACH * PLANE, part.numbers += NUMBERS;
    }
}

// ---- one output of two channels ----------------------------------------------------------------------------

// The tile as one pair of channels a pixel, line after line
DEVICE void read_pairs(const Place& place, const Input& x) {
    #pragma unroll 4
    for (int pixel = threadIdx.x; pixel < PLANE; pixel += THREADS) {
        const int row = place.top - HALO + pixel / COLUMNS, left = place.left - HALO + pixel % COLUMNS;
        const bool inside = row >= 0 && row < place.h && left >= 0 && left < place.w;
        const Number* from = x.first + (row * x.w + left) * x.pitch;
        reinterpret_cast<unsigned*>(place.tile)[pixel] = inside ? read_pair<X_PAIRS, 2>(from, 0) : 0u;
    }
}

// Eight lines of sixteen pixels, K columns of two channels deep: a line of the tile meets the weights of each of the
// lines that see it. The thread has the lines 2t and 2t + 1, of the pixels g and then g + 8.
// Numbers: bias and seven unused, then for each line of the tile its weights, their high parts and their low ones.
template <int K> DEVICE void narrow(const Place& place, int top, int left, float (&sums)[4]) {
    static_assert(K <= 7, "");
    const int lane = threadIdx.x % 32, t = lane % 4;
    const unsigned* from = reinterpret_cast<const unsigned*>(place.tile) + top * COLUMNS + left + lane / 4 + t;
    const uint2* weights = reinterpret_cast<const uint2*>(place.numbers + 8) + lane;
    #pragma unroll
    for (int i = 0; i < 4; i++) sums[i] = place.numbers[0];
    #pragma unroll
    for (int line = 0; line < 7 + K; line++) {
        const unsigned* pixel = from + line * COLUMNS;
        const unsigned a[4] = {pixel[0], pixel[8], t < 3 ? pixel[4] : 0u, t < 3 ? pixel[12] : 0u};
        multiply(sums, a, weights[2 * line * 32]);
        multiply(sums, a, weights[(2 * line + 1) * 32]);
    }
}

// The numbers of a line, to all threads that share its pixels
DEVICE void shared_out(const float (&sums)[4], int line, float (&v)[4]) {
    const int holder = threadIdx.x % 32 / 4 * 4 + line / 2;
    v[0] = v[1] = __shfl_sync(~0u, sums[line % 2], holder);
    v[2] = v[3] = __shfl_sync(~0u, sums[2 + line % 2], holder);
}
