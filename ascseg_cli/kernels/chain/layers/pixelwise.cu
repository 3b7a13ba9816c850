// One pass over images: v = activation(normalised x), combined with a second image, plus a third, activated again.
// ACTIVATION, COMBINE and THEN say how; PLUS whether there is a third; SPREAD that x has one channel against c;
// BATCH that the result's statistics are wanted (backward: that they have a gradient); SUMS that the norm's gradients are.
#include "pixels.cuh"

constexpr int GATE = 1, SOFT_GATE = 2, BOOST = 3;  // COMBINE, besides NONE

struct Images { const float *x, *other, *plus; int x_pitch, other_pitch, plus_pitch; };
struct Pixel { Numbers z, other, plus; };

// Pixel `i` of image `image`; `pixels` are in each.
DEVICE Pixel pixel_at(const Images& in, int image, int pixels, int i, int channel) {
    const size_t at = size_t(image) * pixels + i;
    Pixel p;
    p.z = SPREAD ? all(in.x[at * in.x_pitch]) : load(in.x + at * in.x_pitch + channel);
    p.other = p.plus = all(0.0f);
    if (COMBINE == BOOST) p.other = load(in.other + size_t(image) * in.other_pitch + channel);
    else if (COMBINE != NONE) p.other = load(in.other + at * in.other_pitch + channel);
    if (PLUS) p.plus = load(in.plus + at * in.plus_pitch + channel);
    return p;
}

// The result before its last activation, from v.
DEVICE Numbers combined(const Pixel& p, Numbers v) {
    return each([&](int j) {
        const float o = p.other.at[j], plus = p.plus.at[j];
        if (COMBINE == GATE) return fmaf(v.at[j], o, o) + plus;
        if (COMBINE == SOFT_GATE) return fmaf(v.at[j], sigmoid(o), o) + plus;
        if (COMBINE == BOOST) return fmaf(o, v.at[j], v.at[j]) + plus;
        return v.at[j] + plus;
    });
}

DEVICE Numbers result_of(const Pixel& p, const Norms& n) {
    const Numbers r = combined(p, activated<ACTIVATION>(p.z, n));
    return each([&](int j) { return activate<THEN>(r.at[j]); });
}

#if !BACKWARD
KERNEL applied_forward(
    const float* __restrict__ x, int x_pitch, const float* __restrict__ other, int other_pitch,
    const float* __restrict__ plus, int plus_pitch, const float* statistics, const float* weight, const float* bias,
    float eps, float* __restrict__ y, int c, int pixels, double* partials, float* pivot
) {
    SHARED(float, scratch);
    const Images in = {x, other, plus, x_pitch, other_pitch, plus_pitch};
    const Place at = place_of(c);
    const int image = blockIdx.z, end = at.idle ? 0 : pixels;
    const Norms n = norms_of(statistics, weight, bias, eps, SPREAD ? 1 : c, at.channel);
    const Numbers middle = BATCH ? result_of(pixel_at(in, 0, pixels, 0, at.channel), n) : all(0.0f);
    if (BATCH && is_first(at)) store(pivot + at.channel, middle);
    float* const to = y ? y + size_t(image) * pixels * c + at.channel : nullptr;  // null: only statistics are wanted
    float sums[2][VEC] = {};
    for (int i = at.begin + at.group; i < end; i += at.step) {
        const Numbers r = result_of(pixel_at(in, image, pixels, i, at.channel), n);
        if (to) store(to + size_t(i) * c, r);
        if (BATCH) add_about(middle, r, sums);
    }
    if (BATCH) add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
}
#else
// What the result's gradient gives to v and to `other`.
DEVICE void through_combination(Numbers g, Numbers v, Numbers other, Numbers& dv, Numbers& dother) {
    for (int j = 0; j < VEC; j++) {
        const float o = other.at[j], share = g.at[j] * v.at[j];
        if (COMBINE == SOFT_GATE) {
            const float s = sigmoid(o);
            dv.at[j] = g.at[j] * s;
            dother.at[j] = fmaf(share, s * (1.0f - s), g.at[j]);
        } else {
            dv.at[j] = COMBINE == GATE ? g.at[j] * o : COMBINE == BOOST ? fmaf(g.at[j], o, g.at[j]) : g.at[j];
            dother.at[j] = COMBINE == GATE ? share + g.at[j] : share;
        }
    }
}

// The sum over a pixel's channels, in the first of its threads; `sums` holds two numbers a thread, taken in turns.
DEVICE float over_channels(Numbers v, int period, int turn, float* sums) {
    float mine = 0.0f;
    for (int j = 0; j < VEC; j++) mine += v.at[j];
    sums += turn % 2 * blockDim.x;
    sums[threadIdx.x] = mine;
    __syncthreads();
    float total = 0.0f;
    if (threadIdx.x % period == 0)
        for (int k = 0; k < period && threadIdx.x + k < blockDim.x; k++) total += sums[threadIdx.x + k];
    return total;
}

// x's norm: partials (blocks, 2, c), with SPREAD (blocks, 2, 1). BOOST: shares (blocks, c), sums of other's gradient.
// dresult is the gradient before THEN, which is that of `plus`. Gradients that aren't wanted are null.
KERNEL applied_backward(
    const float* __restrict__ dy, int dy_pitch, const float* __restrict__ x, int x_pitch,
    const float* __restrict__ other, int other_pitch, const float* __restrict__ plus, int plus_pitch,
    const float* statistics, const float* weight, const float* bias, float eps,
    const float* y_statistics, const float* dstatistics, float count,
    float* __restrict__ dx, float* __restrict__ dother, float* __restrict__ dresult, int c, int pixels,
    double* partials, double* shares
) {
    SHARED(float, scratch);
    const Images in = {x, other, plus, x_pitch, other_pitch, plus_pitch};
    const Place at = place_of(c);
    const int image = blockIdx.z, end = at.idle ? 0 : pixels;
    const Norms n = norms_of(statistics, weight, bias, eps, SPREAD ? 1 : c, at.channel);
    const FromAllStatistics s = from_all_statistics(y_statistics, dstatistics, c, at.channel, count);
    float sums[2][VEC] = {}, shared[1][VEC] = {}, spread_sum = 0.0f, spread_share = 0.0f;
    int turn = 0;
    for (int begin = at.begin; begin < pixels; begin += at.step) {
        const int i = begin + at.group;
        const size_t place = size_t(image) * pixels + i, to = place * c + at.channel;
        Numbers dv = all(0.0f), z = all(0.0f);
        if (i < end) {
            const Pixel p = pixel_at(in, image, pixels, i, at.channel);
            const Numbers v = activated<ACTIVATION>(p.z, n), r = combined(p, v);
            Numbers g = dy ? load(dy + place * dy_pitch + at.channel) : all(0.0f), to_other;
            if (BATCH) g = each([&](int j) { return with_statistics(g.at[j], activate<THEN>(r.at[j]), s.at[j]); });
            if (THEN != NONE) g = each([&](int j) { return g.at[j] * slope<THEN>(r.at[j]); });
            through_combination(g, v, p.other, dv, to_other);
            if (dresult) store(dresult + to, g);
            if (COMBINE == BOOST) for (int j = 0; j < VEC; j++) shared[0][j] += to_other.at[j];
            else if (dother) store(dother + to, to_other);
            z = p.z;
        }
        if (SPREAD) {
            const float g = over_channels(dv, c / VEC, turn++, scratch);
            if (i < end && at.channel == 0) {
                const float centred = z.at[0] - n.at[0].mean;
                const float du = g * slope<ACTIVATION>(fmaf(centred, n.at[0].scale, n.at[0].shift));
                spread_sum += du;
                spread_share = fmaf(du, centred, spread_share);
                if (dx) dx[place] = du * n.at[0].scale;
            }
        } else if (i < end) {
            const Numbers d = through_norm<ACTIVATION>(dv, z, n, sums);
            if (dx) store(dx + to, d);
        }
    }
    if (SUMS && SPREAD) {
        double* const two = reinterpret_cast<double*>(scratch);
        __syncthreads();
        const double first = block_sum(double(spread_sum), two), second = block_sum(double(spread_share), two);
        if (threadIdx.x == 0) {
            partials[row_of_block() * 2] = first;
            partials[row_of_block() * 2 + 1] = second;
        }
    } else if (SUMS) {
        add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
    }
    if (COMBINE == BOOST) add_up<1>(shared, c / VEC, scratch, shares + row_of_block() * c, c);
}
#endif
