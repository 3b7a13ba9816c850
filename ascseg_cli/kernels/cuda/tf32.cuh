// Products of small matrices on tensor cores: float32 rounded to TF32, sums in float32. A warp works together.
//
// d (16, 8) += a (16, K) · b (K, 8), K 4 or 8. With g = lane / 4 and t = lane % 4 a thread holds
// a: (g, t), (g + 8, t), and for K = 8 (g, t + 4), (g + 8, t + 4); b: (t, g), and (t + 4, g);
// d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once
#include "device.cuh"

#ifdef EMULATED
DEVICE float tf32(float v) {  // to nearest, ties away from zero
    const unsigned bits = __float_as_uint(v);
    return v != v ? v : __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float b0) {
    const int lane = threadIdx.x % 32;
    for (int k = 0; k < 4; k++) {
        const int row = lane / 4 * 4 + k, column = lane % 4 * 8 + k;
        const float upper = __shfl_sync(~0u, a0, row), lower = __shfl_sync(~0u, a1, row);
        const float left = __shfl_sync(~0u, b0, column), right = __shfl_sync(~0u, b0, column + 4);
        d[0] = fmaf(tf32(upper), tf32(left), d[0]), d[1] = fmaf(tf32(upper), tf32(right), d[1]);
        d[2] = fmaf(tf32(lower), tf32(left), d[2]), d[3] = fmaf(tf32(lower), tf32(right), d[3]);
    }
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
    multiply_tf32(d, a0, a1, b0);
    multiply_tf32(d, a2, a3, b1);
}
#else
DEVICE float tf32(float v) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return __uint_as_float(bits);
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float b0) {
    asm("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(b0)));
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)), "r"(__float_as_uint(a3)),
          "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
#endif
