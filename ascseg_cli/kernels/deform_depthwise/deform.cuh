// What the kernels of the deformable convolution share: how channels are cut, and what is read around a sample.
//
// VEC     channels that a thread takes at once, 4 or 1
// LANES   threads that share a pixel, neighbours in a warp
// SLICE   the channels of a block, LANES · VEC; images of more channels are cut into slices
#pragma once
#include "norm.cuh"
#include "sample.cuh"

constexpr int SLICE = LANES * VEC, OFFSETS = 2 * TAPS;
constexpr int TAP_FLOATS = ceil_div(TAPS * SLICE, 4) * 4;  // room for the weights, so that what follows is aligned

struct Numbers { float at[VEC]; };

DEVICE Numbers load(const float* p) {
#if VEC == 4
    const float4 v = load4(p);
    return {v.x, v.y, v.z, v.w};
#else
    return {*p};
#endif
}

DEVICE void store(float* p, const Numbers& v) {
#if VEC == 4
    store4(p, make_float4(v.at[0], v.at[1], v.at[2], v.at[3]));
#else
    *p = v.at[0];
#endif
}

DEVICE Numbers zeros() {
    Numbers v;
    for (int j = 0; j < VEC; j++) v.at[j] = 0.0f;
    return v;
}

// The four pixels of a sample, zero outside: upper left, upper right, lower left, lower right.
struct Corners { Numbers a, b, c, d; };

DEVICE Corners corners_of(const Sample& s, const float* x, int pitch, int w, bool exists) {
    const float* const at = x + (s.row * w + s.column) * pitch;  // h · w · pitch fits 31 bits
    Corners k;
    k.a = exists && s.above && s.before ? load(at) : zeros();
    k.b = exists && s.above && s.after ? load(at + pitch) : zeros();
    k.c = exists && s.below && s.before ? load(at + w * pitch) : zeros();
    k.d = exists && s.below && s.after ? load(at + (w + 1) * pitch) : zeros();
    return k;
}

// weight (c, 1, 3, 3) -> (9, SLICE) of the block's channels, zero for channels that don't exist
DEVICE void load_taps(float* taps, const float* weight, int first) {
    for (int i = threadIdx.x; i < TAPS * SLICE; i += blockDim.x) {
        const int channel = first + i % SLICE;
        taps[i] = channel < C ? weight[channel * TAPS + i / SLICE] : 0.0f;
    }
}

// The normalisation of the offsets, as (mean, scale, shift, unused) of each of the 18 channels.
DEVICE void load_norms(float4* norms, const float* statistics, const float* gamma, const float* beta, float eps) {
    if (threadIdx.x < OFFSETS) {
        const Norm n = norm_of(statistics, gamma, beta, eps, OFFSETS, threadIdx.x);
        norms[threadIdx.x] = make_float4(n.mean, n.scale, n.shift, 0.0f);
    }
}

DEVICE float offset_normed(float z, const float4* norms, int channel) {
#if NORM
    const float4 n = norms[channel];
    return normed(z, {n.x, n.y, n.z});
#else
    return z;
#endif
}
