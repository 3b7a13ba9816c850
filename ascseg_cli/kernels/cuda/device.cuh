// What every kernel of ours uses. Images are (b, h, w, c), channels innermost ("channels last").
// Dynamic shared memory is declared by SHARED(type, name), so that kernels also compile as plain C++ for tests.
#pragma once

#ifndef EMULATED
#define SHARED(type, name) extern __shared__ __align__(16) unsigned char name##_bytes[]; \
                           type* const name = reinterpret_cast<type*>(name##_bytes)
#endif

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

constexpr int NONE = 0, RELU = 1, GELU = 2, SIGMOID = 3;  // activations

DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// x · Φ(x), exact
DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// Φ(x) + x · φ(x)
DEVICE float gelu_slope(float x) {
    const float density = 0.39894228040143268f * expf(-0.5f * x * x);
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) + x * density;
}

// log(1 + e^x) as torch has it: x itself above 20
DEVICE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

template <int ACT> DEVICE float activate(float x) {
    if constexpr (ACT == RELU) return fmaxf(x, 0.0f);
    if constexpr (ACT == GELU) return gelu(x);
    if constexpr (ACT == SIGMOID) return sigmoid(x);
    return x;
}

// the derivative of `activate`, at x
template <int ACT> DEVICE float slope(float x) {
    if constexpr (ACT == RELU) return x > 0.0f ? 1.0f : 0.0f;
    if constexpr (ACT == GELU) return gelu_slope(x);
    if constexpr (ACT == SIGMOID) { const float s = sigmoid(x); return s * (1.0f - s); }
    return 1.0f;
}

DEVICE float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
DEVICE void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }

template <typename T> DEVICE T warp_sum(T v) {
    for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

// The sum of v over the block, in every thread of the first warp; scratch holds a number for each of the warps.
// blockDim.x must be a multiple of 32. Starts and ends with a barrier, so scratch may be reused at once.
template <typename T> DEVICE T block_sum(T v, T* scratch) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    T total = lane < warps ? scratch[lane] : T(0);
    if (warp == 0) total = warp_sum(total);
    __syncthreads();
    return total;
}
