// Numbers as images keep them: float32, or bfloat16 where BF16 is 1.
#pragma once
#include "device.cuh"

#ifdef EMULATED
DEVICE unsigned short rounded(float v) {  // to the nearest, halves to even
    const unsigned bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DEVICE unsigned rounded2(float low, float high) { return rounded(low) | unsigned(rounded(high)) << 16; }
#else
DEVICE unsigned rounded2(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
DEVICE unsigned short rounded(float v) { return (unsigned short)rounded2(v, 0.0f); }
#endif

DEVICE float low_of(unsigned pair) { return __uint_as_float(pair << 16); }
DEVICE float high_of(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// Four float32 numbers as bfloat16, then what that leaves of each, as bfloat16: their sums err by 2⁻¹⁷ of them at most.
DEVICE uint4 paired(float4 v) {
    const unsigned a = rounded2(v.x, v.y), b = rounded2(v.z, v.w);
    return {a, b, rounded2(v.x - low_of(a), v.y - high_of(a)), rounded2(v.z - low_of(b), v.w - high_of(b))};
}

#ifdef EMULATED
DEVICE unsigned larger2(unsigned a, unsigned b) {
    return rounded2(fmaxf(low_of(a), low_of(b)), fmaxf(high_of(a), high_of(b)));
}
template <int BYTES> DEVICE void copy_async(void* to, const void* from, bool there) {
    for (int i = 0; i < BYTES; i++)
        static_cast<unsigned char*>(to)[i] = there ? static_cast<const unsigned char*>(from)[i] : 0;
}
DEVICE void copies_done() {}
#else
DEVICE unsigned larger2(unsigned a, unsigned b) {
    unsigned both;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(both) : "r"(a), "r"(b));
    return both;
}
// 8 or 16 bytes to shared memory by way of no register, or as many zeros; there after `copies_done` and a barrier.
template <int BYTES> DEVICE void copy_async(void* to, const void* from, bool there) {
    const unsigned at = unsigned(__cvta_generic_to_shared(to)), count = there ? BYTES : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" :: "r"(at), "l"(from), "n"(BYTES), "r"(count) : "memory");
}
DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#endif

DEVICE uint4 larger8(uint4 a, uint4 b) {
    return {larger2(a.x, b.x), larger2(a.y, b.y), larger2(a.z, b.z), larger2(a.w, b.w)};
}

#if BF16
typedef unsigned short Number;
DEVICE float read1(const Number* p) { return __uint_as_float(unsigned(*p) << 16); }
DEVICE void write1(Number* p, float v) { *p = rounded(v); }
DEVICE float4 read4(const Number* p) {
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    return {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
            __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u)};
}
DEVICE void write4(Number* p, float4 v) {
    *reinterpret_cast<uint2*>(p) = {rounded2(v.x, v.y), rounded2(v.z, v.w)};
}
#else
typedef float Number;
DEVICE float read1(const Number* p) { return *p; }
DEVICE void write1(Number* p, float v) { *p = v; }
DEVICE float4 read4(const Number* p) { return load4(p); }
DEVICE void write4(Number* p, float4 v) { store4(p, v); }
#endif

// `count` channels, at most four, of a pixel; the rest is 0.
template <bool WHOLE> DEVICE float4 read_some(const Number* p, int count) {
    if constexpr (WHOLE) return read4(p);
    float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    v.x = read1(p);
    if (count > 1) v.y = read1(p + 1);
    if (count > 2) v.z = read1(p + 2);
    if (count > 3) v.w = read1(p + 3);
    return v;
}

template <bool WHOLE> DEVICE void write_some(Number* p, float4 v, int count) {
    if constexpr (WHOLE) { write4(p, v); return; }
    write1(p, v.x);
    if (count > 1) write1(p + 1, v.y);
    if (count > 2) write1(p + 2, v.z);
    if (count > 3) write1(p + 3, v.w);
}
