// Dense convolutions on tensor cores: of bfloat16 images, and of float32 images as pairs (`paired`). The tile lies in
// shared memory as planes of eight bfloat16 channels, or of four as pairs, 16 bytes a pixel: a row of a matrix that the
// hardware loads. Sums are float32's.
//
// Rows of the product are sixteen neighbouring pixels, columns eight outputs, and its depth is a plane at a tap,
// twice. The weights come in the order in which a warp's threads hold them. Those of pairs are pairs, too: a product
// with their high parts, which both parts of a pixel's channel meet, then one with their low parts.
#pragma once
#include "passes.cuh"

DEVICE constexpr int tensor_planes(int c) { return TENSOR == PAIRS ? planes(c) : (c + 7) / 8; }

// How many lines a warp does at once: as many as registers allow and leave work for every warp.
DEVICE constexpr int lines_of(int n, int lines) {
    int m = n > 2 ? 4 : 8;
    while (m > 1 && (TILE_H % m || lines / m < THREADS / 32)) m /= 2;
    return m;
}

#ifdef EMULATED
DEVICE void load_matrices(unsigned (&a)[4], const uint4* row) {
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) {
        const auto from = __shfl_sync(~0u, reinterpret_cast<unsigned long long>(row), i * 8 + lane / 4);
        a[i] = reinterpret_cast<const unsigned*>(from)[lane % 4];
    }
}

DEVICE float number_at(const unsigned long long* of, int depth) {  // of four threads' two registers each
    const unsigned bits = unsigned(of[depth % 8 / 2] >> (depth < 8 ? 0 : 32));
    return __uint_as_float(depth % 2 ? bits & 0xffff0000u : bits << 16);
}

DEVICE void multiply(float (&d)[4], const unsigned (&a)[4], uint2 b) {
    typedef unsigned long long Pair;
    const int lane = threadIdx.x % 32;
    Pair rows[2][4], columns[2][4];
    for (int i = 0; i < 2; i++)
        for (int holder = 0; holder < 4; holder++) {
            rows[i][holder] = __shfl_sync(~0u, a[i] | Pair(a[2 + i]) << 32, lane / 4 * 4 + holder);
            columns[i][holder] = __shfl_sync(~0u, b.x | Pair(b.y) << 32, (lane % 4 * 2 + i) * 4 + holder);
        }
    for (int depth = 0; depth < 16; depth++)
        for (int i = 0; i < 4; i++) d[i] = fmaf(number_at(rows[i / 2], depth), number_at(columns[i % 2], depth), d[i]);
}
#else
DEVICE void load_matrices(unsigned (&a)[4], const uint4* row) {
    const unsigned at = unsigned(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(at));
}

DEVICE void multiply(float (&d)[4], const unsigned (&a)[4], uint2 b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}
#endif

// A thread's part of the weights that two planes meet at a tap, for eight outputs.
#if TENSOR == PAIRS
struct alignas(16) Weights { uint2 high, low; };
constexpr int HOLDERS = 16;
DEVICE int holder(int lane) { return lane / 4 * 2 + lane % 2; }
DEVICE void multiply(float (&d)[4], const unsigned (&a)[4], Weights b) { multiply(d, a, b.high), multiply(d, a, b.low); }
#else
typedef uint2 Weights;
constexpr int HOLDERS = 32;
DEVICE int holder(int lane) { return lane; }
#endif

// A warp's sums: M lines of sixteen pixels, one below the other, and N times eight outputs.
//
// The taps of a column see the same lines, so a line is loaded once for all of them. Weights as [two planes at
// a column of taps][tap][eight outputs][thread of a warp][two registers], or, as pairs, [every other two of a warp's
// threads][two registers of high parts, two of low].
template <int C, int OUT, int K, int D, int M, int N>
DEVICE void dense_lines(const uint4* first, const Weights* weights, int eighth, float (&sum)[M][N][4]) {
    constexpr int G = tensor_planes(C), DEPTHS = K * G, COUNT = (DEPTHS + 1) / 2, EIGHTS = (OUT + 7) / 8;
    const int lane = threadIdx.x % 32;
    #pragma unroll 1
    for (int step = 0; step < COUNT; step++) {
        const int depth = min(2 * step + lane / 16, DEPTHS - 1);
        const uint4* line = first + depth % G * PLANE + depth / G * D;
        Weights b[K][N];
        #pragma unroll
        for (int tap = 0; tap < K; tap++)
            #pragma unroll
            for (int n = 0; n < N; n++) {
                b[tap][n] = {};
                if (eighth + n < EIGHTS)
                    b[tap][n] = weights[((step * K + tap) * EIGHTS + eighth + n) * HOLDERS + holder(lane)];
            }
        #pragma unroll
        for (int i = 0; i < M + (K - 1) * D; i++) {
            unsigned a[4];
            if (i % D >= M) continue;  // between the taps of few lines
            load_matrices(a, line + i * COLUMNS);
            #pragma unroll
            for (int tap = 0; tap < K; tap++) {
                const int m = i - tap * D;
                if (m < 0 || m >= M) continue;
                #pragma unroll
                for (int n = 0; n < N; n++) multiply(sum[m][n], a, b[tap][n]);
            }
        }
    }
}

// Those sums for the lines from (top, left) of the tile on, and the outputs from eight times `eighth` on.
// Numbers: biases, then weights as above.
template <int C, int OUT, int K, int D, int AT, int M, int N>
DEVICE void convolved(const Place& place, int border, int top, int left, int eighth, float (&sum)[M][N][4]) {
    const int lane = threadIdx.x % 32;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        const int channel = (eighth + n) * 8 + lane % 4 * 2;
        const float low = channel < OUT ? place.numbers[AT + channel] : 0.0f;
        const float high = channel + 1 < OUT ? place.numbers[AT + channel + 1] : 0.0f;
        #pragma unroll
        for (int m = 0; m < M; m++)
            sum[m][n][0] = sum[m][n][2] = low, sum[m][n][1] = sum[m][n][3] = high;
    }
    const uint4* tile = reinterpret_cast<const uint4*>(place.tile);
    const Weights* weights = reinterpret_cast<const Weights*>(place.numbers + AT + round_up(padded(OUT), 4));
    const uint4* first = tile + (top + border) * COLUMNS + left + lane % 16 + border;
    dense_lines<C, OUT, K, D, M, N>(first, weights, eighth, sum);
}

template <int C, int OUT, int K, int D, int AT> DEVICE void dense_on_tensor_cores(const Place& place, int border) {
    constexpr int EIGHTS = (OUT + 7) / 8, ACROSS = TILE_W / 16, N = EIGHTS < 4 ? EIGHTS : 4;
    constexpr int GROUPS = (EIGHTS + N - 1) / N, M = lines_of(N, TILE_H * ACROSS * GROUPS), DOWN = TILE_H / M;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    #pragma unroll 1
    for (int item = warp; item < DOWN * ACROSS * GROUPS; item += THREADS / 32) {
        const int top = item % DOWN * M, left = item / DOWN % ACROSS * 16, eighth = item / DOWN / ACROSS * N;
        float sum[M][N][4];
        convolved<C, OUT, K, D, AT>(place, border, top, left, eighth, sum);
        #pragma unroll
        for (int n = 0; n < N; n++) {
            const int channel = (eighth + n) * 8 + lane % 4 * 2;
            if (channel / 4 >= planes(OUT)) continue;
            #pragma unroll
            for (int m = 0; m < M; m++)
                #pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int pixel = (top + m) * TILE_W + left + lane / 4 + half * 8;
                    float4* to = place.exchange + channel / 4 * PIXELS + pixel;
                    const float* z = sum[m][n] + half * 2;
                    reinterpret_cast<float2*>(to)[channel % 4 / 2] = {z[0], z[1]};
                }
        }
    }
}

template <int C, int OUT, int K, int D, int AT>
DEVICE void dense_tensor(const Place& place, int border, float (&v)[STRIP][share(OUT)]) {
    __syncthreads();  // the exchange may still be read
    dense_on_tensor_cores<C, OUT, K, D, AT>(place, border);
    __syncthreads();
    #pragma unroll
    for (int j = 0; j < STRIP; j++)
        get<OUT, share(OUT)>(place.exchange, PIXELS, place.pixel() + j * TILE_W, place.split * share(OUT), v[j]);
}
