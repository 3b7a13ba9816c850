// Products of small matrices on tensor cores, of float32 numbers as TF32 (`tf32`), sums in float32. A warp works
// together.
//
// d (16, 8) += a (16, K) · b (K, 8), K 4 or 8. With g = lane / 4 and t = lane % 4 a thread holds
// a: (g, t), (g + 8, t), and for K = 8 (g, t + 4), (g + 8, t + 4); b: (t, g), and (t + 4, g);
// d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once
#include "device.cuh"

// What the hardware makes the TF32 number nearest to v, but for 1.3 times as large an error: it cuts the last 13 bits
// off, so v grows by what is lost on average. What has ten bits or fewer stays as it is.
DEVICE float tf32(float v) { return v * (1.0f + 0.7f / 2048.0f); }

#ifdef EMULATED
DEVICE float cut(float v) { return v != v ? v : __uint_as_float(__float_as_uint(v) & 0xffffe000u); }

struct Held { float a[4], b[2]; };  // of a thread

DEVICE void multiply_held(float (&d)[4], const Held& mine, int depth) {
    static Held held[32][32];  // of each warp's threads
    Held* const warp = held[threadIdx.x / 32];
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    warp[threadIdx.x % 32] = mine;
    __syncwarp();
    for (int k = 0; k < depth; k++)
        for (int i = 0; i < 4; i++) {
            const float a = warp[4 * g + k % 4].a[k / 4 * 2 + i / 2];
            d[i] = fmaf(cut(a), cut(warp[4 * (2 * t + i % 2) + k % 4].b[k / 4]), d[i]);
        }
    __syncwarp();
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float b0) {
    multiply_held(d, {{a0, a1}, {b0}}, 4);
}

DEVICE void multiply_tf32(float (&d)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
    multiply_held(d, {{a0, a1, a2, a3}, {b0, b1}}, 8);
}
#else
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
