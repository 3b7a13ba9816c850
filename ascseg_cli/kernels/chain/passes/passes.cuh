// What the parts of a pass share: an image tile in shared memory, one convolution or pooling over neighbours, steps
// within a pixel, and the way back. A thread owns a strip: STRIP pixels one below the other, and a range of channels, that
// stay in registers; where a step needs other channels of a pixel, all go through shared memory.
//
// Shared images are planes of four channels each, a float4 a pixel, so that neighbouring threads read neighbouring
// float4. Numbers of layers come in multiples of four; channels beyond the last have weight 0.
#pragma once
#include "storage.cuh"

#define HALVES 1  // values of TENSOR, what the tensor cores multiply; 0: nothing
#define PAIRS 2   // float32 numbers, each as the sum of two of bfloat16
namespace over { enum { ALONE, DENSE, GROUPED, MAXIMUM }; }
namespace resize { enum { SAME, DOUBLE, HALVE }; }
namespace kind { enum { POINTWISE, AFFINE, NORM, RELU, GELU, SIGMOID, ADD, GATE, SOFT_GATE, BOOST }; }

constexpr int STRIPS = TILE_W * (TILE_H / STRIP), THREADS = STRIPS * SPLIT;
constexpr int PIXELS = TILE_W * TILE_H;
constexpr int COLUMNS = TILE_W + 2 * HALO, LINES = TILE_H + 2 * HALO, PLANE = COLUMNS * LINES;

DEVICE constexpr int planes(int c) { return (c + 3) / 4; }
DEVICE constexpr int round_up(int a, int b) { return (a + b - 1) / b * b; }
// How many numbers a row of outputs has in memory.
DEVICE constexpr int padded(int c) { return c <= 4 ? c : round_up(c, 8); }
// How many channels of c a thread has.
DEVICE constexpr int share(int c) { return c <= 4 ? c : round_up((padded(c) + SPLIT - 1) / SPLIT, 4); }

DEVICE float& part(float4& v, int i) { return reinterpret_cast<float*>(&v)[i]; }

// What a thread knows: where its strip is, and the block's memory.
struct Place {
    int split, column, row;   // of the strip in the tile
    int top, left;            // of the tile in the image
    int h, w;                 // of the image that the convolution sees
    const float* numbers;     // of all layers, in shared memory if they fit
    const float* source;      // of all layers, in global memory
    float4 *tile, *exchange, *others;
    float* staged;            // weights on their way
    DEVICE int pixel() const { return row * TILE_W + column; }
};

// ---- numbers ----------------------------------------------------------------------------------------------

DEVICE void copy_numbers(float* to, const float* from, int count) {  // a multiple of four
    for (int i = threadIdx.x; i < count / 4; i += THREADS) store4(to + 4 * i, load4(from + 4 * i));
}

// `count` numbers from `at` in shared memory; a barrier where they must be brought first.
DEVICE const float* ready(const Place& place, int at, int count) {
    if constexpr (PRELOAD) return place.numbers + at;
    __syncthreads();
    copy_numbers(place.staged, place.source + at, count);
    __syncthreads();
    return place.staged;
}

// ---- shared images ----------------------------------------------------------------------------------------

// N channels of a pixel from channel `first` on; 0 beyond the last plane.
template <int C, int N> DEVICE void get(const float4* image, int plane, int pixel, int first, float* v) {
    if constexpr (N < 4) {
        float4 four = image[pixel];
        #pragma unroll
        for (int o = 0; o < N; o++) v[o] = first == 0 ? part(four, o) : 0.0f;
    } else {
        #pragma unroll
        for (int o = 0; o < N; o += 4) {
            float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
            if (first + o < C) four = image[(first + o) / 4 * plane + pixel];
            #pragma unroll
            for (int i = 0; i < 4; i++) v[o + i] = part(four, i);
        }
    }
}

// A strip's channels to the exchange, for the whole block to read.
template <int C> DEVICE void put(const Place& place, const float (&v)[STRIP][share(C)]) {
    constexpr int N = share(C);
    __syncthreads();
    const int first = place.split * N;
    #pragma unroll
    for (int j = 0; j < STRIP; j++)
        #pragma unroll
        for (int o = 0; o < N; o += 4) {
            if (first + o >= C) continue;
            float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
            #pragma unroll
            for (int i = 0; i < 4 && o + i < N; i++) part(four, i) = v[j][o + i];
            place.exchange[(first + o) / 4 * PIXELS + place.pixel() + j * TILE_W] = four;
        }
    __syncthreads();
}

// The biases of a thread's channels, or any other row of numbers.
template <int C> DEVICE void row_of(const Place& place, const float* numbers, float (&row)[share(C)]) {
    constexpr int N = share(C);
    const float* from = numbers + place.split * N;
    if constexpr (N % 4 == 0) {
        #pragma unroll
        for (int o = 0; o < N; o += 4) {
            float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
            if (place.split * N + o < padded(C)) four = load4(from + o);
            #pragma unroll
            for (int i = 0; i < 4; i++) row[o + i] = part(four, i);
        }
    } else {
        #pragma unroll
        for (int o = 0; o < N; o++) row[o] = place.split == 0 ? from[o] : 0.0f;
    }
}
