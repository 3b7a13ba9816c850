// Layer normalisation over the C channels of each pixel. LANES threads, a power of two within a warp, share a pixel:
// thread k has the channels from (k + LANES · m) · VEC on, for m = 0 to PER - 1. OTHER: x is the sum of two images;
// SUMS: the gradients of weight and bias are wanted.
#include "pixels.cuh"

constexpr int UNIT = LANES * VEC, PER = (C + UNIT - 1) / UNIT, PADDED = PER * UNIT;

struct Share { Numbers at[PER]; };

DEVICE float over_lanes(float v) {
    for (int lane = LANES / 2; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

DEVICE bool has(int m, int channel) { return C % UNIT == 0 || m * UNIT + channel < C; }

// A thread's share of a pixel, of channels that aren't there zeros.
DEVICE Share share_of(const float* pixel, int channel) {
    Share s;
    for (int m = 0; m < PER; m++) s.at[m] = has(m, channel) ? load(pixel + m * UNIT + channel) : all(0.0f);
    return s;
}

template <typename F> DEVICE float sum_over_pixel(F of, int channel) {
    float total = 0.0f;
    for (int m = 0; m < PER; m++)
        for (int j = 0; j < VEC; j++) total += has(m, channel) ? of(m, j) : 0.0f;
    return over_lanes(total);
}

struct Inputs { const float *x, *other; int pitch, other_pitch; };

// (x - mean) / √(variance + eps) of pixel i, and in `inverse` what it was multiplied by.
DEVICE Share standardised(const Inputs& in, size_t i, bool there, int channel, float eps, float& inverse) {
    Share v = {};
    if (there) {
        v = share_of(in.x + i * in.pitch, channel);
        if (OTHER) {
            const Share o = share_of(in.other + i * in.other_pitch, channel);
            for (int m = 0; m < PER; m++) v.at[m] = each([&](int j) { return v.at[m].at[j] + o.at[m].at[j]; });
        }
    }
    const float mean = sum_over_pixel([&](int m, int j) { return v.at[m].at[j]; }, channel) / C;
    for (int m = 0; m < PER; m++) v.at[m] = each([&](int j) { return v.at[m].at[j] - mean; });
    const float squares = sum_over_pixel([&](int m, int j) { return v.at[m].at[j] * v.at[m].at[j]; }, channel);
    inverse = rsqrtf(squares / C + eps);
    for (int m = 0; m < PER; m++) v.at[m] = each([&](int j) { return v.at[m].at[j] * inverse; });
    return v;
}

#if !BACKWARD
KERNEL layernorm_forward(
    const float* __restrict__ x, int pitch, const float* __restrict__ other, int other_pitch,
    const float* __restrict__ weight, const float* __restrict__ bias, float eps, float* __restrict__ y, int pixels
) {
    const Place at = place_of(UNIT);
    const Inputs in = {x, other, pitch, other_pitch};
    Share w, b;
    for (int m = 0; m < PER; m++)
        for (int j = 0; j < VEC; j++) {
            const int k = has(m, at.channel) ? m * UNIT + at.channel + j : 0;
            w.at[m].at[j] = weight[k];
            b.at[m].at[j] = bias[k];
        }
    for (int begin = at.begin; begin < pixels; begin += at.step) {
        const bool there = begin + at.group < pixels;
        const size_t i = size_t(blockIdx.z) * pixels + begin + at.group;
        float inverse;
        const Share v = standardised(in, i, there, at.channel, eps, inverse);
        for (int m = 0; m < PER && there; m++) {
            if (!has(m, at.channel)) continue;
            const Numbers r = each([&](int j) { return fmaf(v.at[m].at[j], w.at[m].at[j], b.at[m].at[j]); });
            store(y + i * C + m * UNIT + at.channel, r);
        }
    }
}
#else
// With g = dy · weight: dx = (g - mean(g) - v · mean(g · v)) · inverse; partials (blocks, 2, PADDED): Σ dy · v, Σ dy.
KERNEL layernorm_backward(
    const float* __restrict__ dy, int dy_pitch, const float* __restrict__ x, int pitch,
    const float* __restrict__ other, int other_pitch, const float* __restrict__ weight, float eps,
    float* __restrict__ dx, int pixels, double* partials
) {
    SHARED(float, scratch);
    const Place at = place_of(UNIT);
    const Inputs in = {x, other, pitch, other_pitch};
    const Share w = share_of(weight, at.channel);
    float sums[PER][2][VEC] = {};
    for (int begin = at.begin; begin < pixels; begin += at.step) {
        const bool there = begin + at.group < pixels;
        const size_t i = size_t(blockIdx.z) * pixels + begin + at.group;
        Share d = {};
        if (there) d = share_of(dy + i * dy_pitch, at.channel);
        float inverse;
        const Share v = standardised(in, i, there, at.channel, eps, inverse);
        const auto g = [&](int m, int j) { return d.at[m].at[j] * w.at[m].at[j]; };
        const float mean = sum_over_pixel(g, at.channel) / C;
        const auto product = [&](int m, int j) { return g(m, j) * v.at[m].at[j]; };
        const float along = sum_over_pixel(product, at.channel) / C;
        for (int m = 0; m < PER && there; m++) {
            if (!has(m, at.channel)) continue;
            for (int j = 0; j < VEC; j++) {
                sums[m][0][j] = fmaf(d.at[m].at[j], v.at[m].at[j], sums[m][0][j]);
                sums[m][1][j] += d.at[m].at[j];
            }
            const Numbers r = each([&](int j) { return (g(m, j) - mean - v.at[m].at[j] * along) * inverse; });
            if (dx) store(dx + i * C + m * UNIT + at.channel, r);
        }
    }
    for (int m = 0; m < PER && SUMS; m++)
        add_up<2>(sums[m], LANES, scratch, partials + row_of_block() * 2 * PADDED + m * UNIT, PADDED);
}
#endif
