// Dense convolutions of bfloat16 images on tensor cores. The tile lies in shared memory as planes of eight bfloat16
// channels, 16 bytes a pixel: a row of a matrix that the hardware loads. Sums are float32's.
//
// Rows of the product are sixteen neighbouring pixels, columns eight outputs, and its depth is eight channels at a
// tap, twice. The weights come in the order in which a warp's threads hold them.
#pragma once
#include "passes.cuh"

#ifdef EMULATED
DEVICE void load_matrices(unsigned (&a)[4], const uint4* row) {
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) {
        const auto from = __shfl_sync(~0u, reinterpret_cast<unsigned long long>(row), i * 8 + lane / 4);
        a[i] = reinterpret_cast<const unsigned*>(from)[lane % 4];
    }
}

DEVICE float sixteenth(const unsigned long long* of, int depth) {  // of four threads' two registers each
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
        for (int i = 0; i < 4; i++) d[i] = fmaf(sixteenth(rows[i / 2], depth), sixteenth(columns[i % 2], depth), d[i]);
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

// Numbers: biases, then weights as [step][eight outputs][thread of a warp][four bfloat16].
template <int C, int OUT, int K, int D, int AT> DEVICE void dense_on_tensor_cores(const Place& place, int border) {
    constexpr int DEPTHS = K * K * (C / 8), COUNT = (DEPTHS + 1) / 2, EIGHTS = (OUT + 7) / 8, ACROSS = TILE_W / 16;
    constexpr int ROWS = TILE_H * ACROSS, N = EIGHTS < 4 ? EIGHTS : 4, M = N <= 2 && ROWS % 4 == 0 ? 4 : 2;
    const uint4* tile = reinterpret_cast<const uint4*>(place.tile);
    const uint2* weights = reinterpret_cast<const uint2*>(place.numbers + AT + round_up(padded(OUT), 4));
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    #pragma unroll 1
    for (int item = warp; item < ROWS / M * ((EIGHTS + N - 1) / N); item += THREADS / 32) {
        const int first = item % (ROWS / M) * M, eighth = item / (ROWS / M) * N;
        int begin[M];  // what the thread loads: a pixel of one of four matrices
        #pragma unroll
        for (int m = 0; m < M; m++) {
            const int row = (first + m) / ACROSS, column = (first + m) % ACROSS * 16 + lane % 16;
            begin[m] = (row + border) * COLUMNS + column + border;
        }
        float sum[M][N][4];
        #pragma unroll
        for (int m = 0; m < M; m++)
            #pragma unroll
            for (int n = 0; n < N; n++)
                #pragma unroll
                for (int i = 0; i < 4; i++) sum[m][n][i] = 0.0f;
        #pragma unroll 2
        for (int step = 0; step < COUNT; step++) {
            const int depth = min(2 * step + lane / 16, DEPTHS - 1), tap = depth / (C / 8);
            const int at = depth % (C / 8) * PLANE + (tap / K * COLUMNS + tap % K) * D;
            uint2 b[N];
            #pragma unroll
            for (int n = 0; n < N; n++) {
                b[n] = {0u, 0u};
                if (eighth + n < EIGHTS) b[n] = weights[(step * EIGHTS + eighth + n) * 32 + lane];
            }
            #pragma unroll
            for (int m = 0; m < M; m++) {
                unsigned a[4];
                load_matrices(a, tile + begin[m] + at);
                #pragma unroll
                for (int n = 0; n < N; n++) multiply(sum[m][n], a, b[n]);
            }
        }
        #pragma unroll
        for (int n = 0; n < N; n++) {
            const int channel = (eighth + n) * 8 + lane % 4 * 2;
            if (channel / 4 >= planes(OUT)) continue;
            const float low = channel < OUT ? place.numbers[AT + channel] : 0.0f;
            const float high = channel + 1 < OUT ? place.numbers[AT + channel + 1] : 0.0f;
            #pragma unroll
            for (int m = 0; m < M; m++)
                #pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = (first + m) / ACROSS, column = (first + m) % ACROSS * 16 + lane / 4 + half * 8;
                    float4* to = place.exchange + channel / 4 * PIXELS + row * TILE_W + column;
                    const float* z = sum[m][n] + half * 2;
                    reinterpret_cast<float2*>(to)[channel % 4 / 2] = {z[0] + low, z[1] + high};
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
