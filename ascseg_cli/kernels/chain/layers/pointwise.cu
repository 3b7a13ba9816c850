// A 1×1 convolution of few channels: bound by memory, so each image is read once, and backward once for everything.
// A thread takes one pixel after another and four channels of each: of the output forward, of the input backward.
// Constants: CI, CO (multiples of four); ACTIVATION, NORMED (of the input); BATCH: statistics of the output, or that
// they have a gradient; backward also SUMMED: sums for the norm's gradients; BIASED: the bias's gradient.
#include "norm.cuh"

constexpr int IN_QUADS = CI / 4, OUT_QUADS = CO / 4;
constexpr int RESIDENT = CO <= 8 ? 4 : CO <= 16 ? 3 : 2;  // blocks of a multiprocessor that registers allow

// Many weights are to be read again for each pixel: kept in registers from one to the next they would spill.
DEVICE void forget_weights() {
#ifndef EMULATED
    asm volatile("" ::: "memory");
#endif
}

struct Quad {
    float at[4];
    DEVICE static Quad of(float4 v) { return {{v.x, v.y, v.z, v.w}}; }
    DEVICE float4 packed() const { return make_float4(at[0], at[1], at[2], at[3]); }
};

// Channel tables in shared memory: mean, scale, shift (or mean, direct, slope) of each.
DEVICE Quad changed(Quad v, const float* table, int c, int first) {
    const Quad m = Quad::of(load4(table + first)), s = Quad::of(load4(table + c + first));
    const Quad b = Quad::of(load4(table + 2 * c + first));
#pragma unroll
    for (int j = 0; j < 4; j++) v.at[j] = fmaf(v.at[j] - m.at[j], s.at[j], b.at[j]);
    return v;
}

DEVICE void norm_table(float* table, const float* statistics, const float* weight, const float* bias, float eps) {
    for (int i = threadIdx.x; i < CI; i += blockDim.x) {
        const Norm n = norm_of(statistics, weight, bias, eps, CI, i);
        table[i] = n.mean, table[CI + i] = n.scale, table[2 * CI + i] = n.shift;
    }
}

// COUNT numbers a thread, summed over the threads of each quad, to `to[quad * COUNT + n]`; scratch (threads, COUNT + 1)
template <int COUNT, int QUADS, typename T> DEVICE void sum_quads(const float (&v)[COUNT], float* scratch, T* to) {
    __syncthreads();
#pragma unroll
    for (int n = 0; n < COUNT; n++) scratch[threadIdx.x * (COUNT + 1) + n] = v[n];
    __syncthreads();
    for (int e = threadIdx.x; e < COUNT * QUADS; e += blockDim.x) {
        const int quad = e / COUNT, n = e % COUNT;
        double total = 0.0;
#pragma unroll 4
        for (int t = quad; t < blockDim.x; t += QUADS) total += scratch[t * (COUNT + 1) + n];
        to[e] = T(total);
    }
}

#if !BACKWARD
// x (pixels, CI) with `pitch`; weight (CO, CI); y (pixels, CO); partials (blocks, 2, CO): Σ (y − bias) and its square
KERNEL __launch_bounds__(256, RESIDENT > 2 ? RESIDENT - 1 : 1) pointwise_forward(
    const float* __restrict__ x, int pitch, const float* statistics, const float* norm_weight, const float* norm_bias,
    float eps, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y,
    double* partials, int pixels
) {
    SHARED(float, memory);
    float* const table = memory;                       // (3, CI)
    float* const weights = memory + 3 * CI;            // (CI, CO)
    float* const scratch = weights + CI * CO;
    if constexpr (NORMED) norm_table(table, statistics, norm_weight, norm_bias, eps);
    for (int e = threadIdx.x; e < CI * CO; e += blockDim.x) weights[e % CI * CO + e / CI] = weight[e];
    __syncthreads();
    const int quad = threadIdx.x % OUT_QUADS, each = blockDim.x / OUT_QUADS;
    Quad added = {};
    if (bias)
#pragma unroll
        for (int j = 0; j < 4; j++) added.at[j] = bias[4 * quad + j];
    float sums[8] = {}, pivot[4] = {};  // about a thread's first result, so that a large mean costs no digits
    double total[8] = {};
    int held = 0, taken = 0;
    for (int p = blockIdx.x * each + threadIdx.x / OUT_QUADS; p < pixels; p += gridDim.x * each) {
        forget_weights();
        Quad u[IN_QUADS], z = {};
#pragma unroll
        for (int q = 0; q < IN_QUADS; q++) u[q] = Quad::of(load4(x + size_t(p) * pitch + 4 * q));
#pragma unroll
        for (int q = 0; q < IN_QUADS; q++) {
            if constexpr (NORMED) u[q] = changed(u[q], table, CI, 4 * q);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float v = activate<ACTIVATION>(u[q].at[i]);
                const Quad w = Quad::of(load4(weights + (4 * q + i) * CO + 4 * quad));
#pragma unroll
                for (int j = 0; j < 4; j++) z.at[j] = fmaf(v, w.at[j], z.at[j]);
            }
        }
        if constexpr (BATCH) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (taken == 0) pivot[j] = z.at[j];
                const float off = z.at[j] - pivot[j];
                sums[j] += off, sums[4 + j] = fmaf(off, off, sums[4 + j]);
            }
            taken++;
            if (++held == 32) {
#pragma unroll
                for (int j = 0; j < 8; j++) total[j] += sums[j], sums[j] = 0.0f;
                held = 0;
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++) z.at[j] += added.at[j];
        store4(y + size_t(p) * CO + 4 * quad, z.packed());
    }
    if constexpr (BATCH) {
        double* const doubles = reinterpret_cast<double*>(memory);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const double m = pivot[j], first = total[j] + sums[j], mean = m * taken;
            doubles[threadIdx.x * 9 + j] = first + mean;
            doubles[threadIdx.x * 9 + 4 + j] = total[4 + j] + sums[4 + j] + m * (2.0 * first + mean);
        }
        __syncthreads();
        for (int e = threadIdx.x; e < 2 * CO; e += blockDim.x) {
            const int channel = e % CO;
            double all = 0.0;
            for (int t = channel / 4; t < blockDim.x; t += OUT_QUADS) all += doubles[t * 9 + e / CO * 4 + channel % 4];
            partials[size_t(blockIdx.x) * 2 * CO + e] = all;
        }
    }
}
#else
// dy (pixels, CO) with `pitch`; z (pixels, CO), out_statistics, dstatistics (2, CO) if BATCH; x (pixels, CI) with x_pitch
// dx (pixels, CI) or null; partials (blocks, 2, CI): Σ g, Σ g · (x − mean)
// slabs (blocks, CO · CI + CO if BIASED): shares of the gradients of weight and bias
KERNEL __launch_bounds__(128, RESIDENT) pointwise_backward(
    const float* __restrict__ dy, int pitch, const float* __restrict__ z, const float* out_statistics,
    const float* dstatistics, float count, const float* __restrict__ weight, const float* __restrict__ x, int x_pitch,
    const float* statistics, const float* norm_weight, const float* norm_bias, float eps, float* __restrict__ dx,
    double* partials, float* slabs, int pixels
) {
    SHARED(float, memory);
    float* const table = memory;                       // (3, CI): the norm
    float* const outs = memory + 3 * CI;               // (3, CO): mean, direct, slope
    float* const weights = outs + 3 * CO;              // (CO, CI)
    float* const scratch = weights + CI * CO;
    if constexpr (NORMED) norm_table(table, statistics, norm_weight, norm_bias, eps);
    if constexpr (BATCH)
        for (int i = threadIdx.x; i < CO; i += blockDim.x) {
            const FromStatistics s = from_statistics(out_statistics, dstatistics, CO, i, count);
            outs[i] = s.mean, outs[CO + i] = s.slope, outs[2 * CO + i] = s.direct;
        }
    for (int e = threadIdx.x; e < CI * CO; e += blockDim.x) weights[e] = weight[e];
    __syncthreads();
    const int quad = threadIdx.x % IN_QUADS, each = blockDim.x / IN_QUADS;
    float dweight[CO * 4] = {}, sums[8] = {}, dbias[BIASED ? CO : 1] = {};
    for (int p = blockIdx.x * each + threadIdx.x / IN_QUADS; p < pixels; p += gridDim.x * each) {
        forget_weights();
        const Quad raw = Quad::of(load4(x + size_t(p) * x_pitch + 4 * quad));
        Quad d[OUT_QUADS];
#pragma unroll
        for (int q = 0; q < OUT_QUADS; q++) d[q] = Quad::of(load4(dy + size_t(p) * pitch + 4 * q));
        if constexpr (BATCH)
#pragma unroll
            for (int q = 0; q < OUT_QUADS; q++) {
                const Quad more = changed(Quad::of(load4(z + size_t(p) * CO + 4 * q)), outs, CO, 4 * q);
#pragma unroll
                for (int j = 0; j < 4; j++) d[q].at[j] += more.at[j];
            }
        const Quad u = NORMED ? changed(raw, table, CI, 4 * quad) : raw;
        Quad g = {}, v;
#pragma unroll
        for (int i = 0; i < 4; i++) v.at[i] = activate<ACTIVATION>(u.at[i]);
#pragma unroll
        for (int o = 0; o < CO; o++) {
            const float of = d[o / 4].at[o % 4];
            const Quad w = Quad::of(load4(weights + o * CI + 4 * quad));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                g.at[i] = fmaf(of, w.at[i], g.at[i]);
                dweight[o * 4 + i] = fmaf(of, v.at[i], dweight[o * 4 + i]);
            }
            if constexpr (BIASED) dbias[o] += of;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) g.at[i] *= slope<ACTIVATION>(u.at[i]);
        if constexpr (SUMMED) {
            const Quad mean = Quad::of(load4(table + 4 * quad));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sums[i] += g.at[i];
                sums[4 + i] = fmaf(g.at[i], raw.at[i] - mean.at[i], sums[4 + i]);
            }
        }
        if constexpr (NORMED) {
            const Quad scale = Quad::of(load4(table + CI + 4 * quad));
#pragma unroll
            for (int i = 0; i < 4; i++) g.at[i] *= scale.at[i];
        }
        if (dx) store4(dx + size_t(p) * CI + 4 * quad, g.packed());
    }
    // a thread's shares, four channels of the input each, to the block's, input channels innermost
    slabs += size_t(blockIdx.x) * (CO * CI + (BIASED ? CO : 0));
#pragma unroll 1
    for (int o = 0; o < CO; o += 4) {
        float part[16];
#pragma unroll
        for (int s = 0; s < CO; s += 4)
            if (s == o)
#pragma unroll
                for (int n = 0; n < 16; n++) part[n] = dweight[s * 4 + n];
        float* const found = scratch + blockDim.x * 17;  // (IN_QUADS, 4, 4)
        sum_quads<16, IN_QUADS>(part, scratch, found);
        __syncthreads();
        for (int e = threadIdx.x; e < 4 * CI; e += blockDim.x)
            slabs[(o + e / CI) * CI + e % CI] = found[e % CI / 4 * 16 + e / CI * 4 + e % 4];
    }
    if constexpr (SUMMED) {
        double* const found = reinterpret_cast<double*>(scratch + (blockDim.x * 9 + 1) / 2 * 2);
        sum_quads<8, IN_QUADS>(sums, scratch, found);
        __syncthreads();
        for (int e = threadIdx.x; e < 2 * CI; e += blockDim.x)
            partials[size_t(blockIdx.x) * 2 * CI + e] = found[e % CI / 4 * 8 + e / CI * 4 + e % 4];
    }
    if constexpr (BIASED) {
        __syncthreads();
        double* const columns = reinterpret_cast<double*>(memory);
#pragma unroll 1
        for (int o = 0; o < CO; o++) {
            float mine = 0.0f;
#pragma unroll
            for (int s = 0; s < CO; s++) mine = s == o ? dbias[s] : mine;
            const double all = block_sum(quad == 0 ? double(mine) : 0.0, columns);
            if (threadIdx.x == 0) slabs[CO * CI + o] = float(all);
        }
    }
}
#endif
