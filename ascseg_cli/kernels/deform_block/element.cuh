// How images lie in memory: float32, or bfloat16 where HALF is 1. Arithmetic is float32 either way.
#pragma once
#include "device.cuh"

#if HALF
typedef unsigned short Element;

DEVICE float2 two_floats(unsigned pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// The nearest bfloat16, ties to even; a NaN stays one.
DEVICE unsigned rounded(float v) {
    const unsigned bits = __float_as_uint(v);
    return (v != v ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

DEVICE float4 read4(const Element* p) {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    const float2 a = two_floats(bits.x), b = two_floats(bits.y);
    return make_float4(a.x, a.y, b.x, b.y);
}

DEVICE void write4(Element* p, float4 v) {
    const uint2 bits = make_uint2(rounded(v.x) | rounded(v.y) << 16, rounded(v.z) | rounded(v.w) << 16);
    *reinterpret_cast<uint2*>(p) = bits;
}
#else
typedef float Element;
DEVICE float4 read4(const Element* p) { return load4(p); }
DEVICE void write4(Element* p, float4 v) { store4(p, v); }
#endif

DEVICE float4 no_floats() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

// total + factor · v
DEVICE float4 fma4(float factor, float4 v, float4 total) {
    return make_float4(
        fmaf(factor, v.x, total.x), fmaf(factor, v.y, total.y), fmaf(factor, v.z, total.z), fmaf(factor, v.w, total.w)
    );
}
