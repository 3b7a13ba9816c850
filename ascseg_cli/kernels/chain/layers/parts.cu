// Up to eight images, each normalised and activated: side by side in one image, or added up. Compiled with VEC, PARTS
// (how many), ACTIVATION (of all, or MIXED), SUMMED (added up, or side by side), BACKWARD, and BATCH (of the sum: its
// statistics are wanted, or have a gradient).
#include "pixels.cuh"

constexpr int MIXED = -1;

struct Part {
    const float* z;
    float* dz;
    int pitch, channels, activation;
    const float *statistics, *weight, *bias;
    float eps;
};

// Kernels take the parts one after another: a launch passes pointers and numbers, no tables.
#define EIGHT(each) each(0), each(1), each(2), each(3), each(4), each(5), each(6), each(7)
#define PARAMETERS(i) const float* z##i, float* dz##i, int pitch##i, int channels##i, int activation##i, \
                      const float* statistics##i, const float* weight##i, const float* bias##i, float eps##i
#define PART(i) {z##i, dz##i, pitch##i, channels##i, activation##i, statistics##i, weight##i, bias##i, eps##i}

// The part to which channel `channel` of all belongs; `channel` becomes one of that part.
DEVICE Part part_of(const Part (&parts)[8], int& channel) {
    Part mine = parts[0];
    int begin = 0, start = 0;
    for (int i = 1; i < PARTS; i++) {
        begin += parts[i - 1].channels;
        if (channel >= begin) mine = parts[i], start = begin;
    }
    channel -= start;
    return mine;
}

DEVICE Norms norms_of(const Part& part, int channel) {
    return norms_of(part.statistics, part.weight, part.bias, part.eps, part.channels, channel);
}

DEVICE Numbers activated(const Part& part, Numbers z, const Norms& n) {
    if (ACTIVATION != MIXED) return activated<ACTIVATION>(z, n);
    if (part.activation == RELU) return activated<RELU>(z, n);
    if (part.activation == GELU) return activated<GELU>(z, n);
    if (part.activation == SIGMOID) return activated<SIGMOID>(z, n);
    return activated<NONE>(z, n);
}

DEVICE Numbers through_norm(const Part& part, Numbers g, Numbers z, const Norms& n, float (&sums)[2][VEC]) {
    if (ACTIVATION != MIXED) return through_norm<ACTIVATION>(g, z, n, sums);
    if (part.activation == RELU) return through_norm<RELU>(g, z, n, sums);
    if (part.activation == GELU) return through_norm<GELU>(g, z, n, sums);
    if (part.activation == SIGMOID) return through_norm<SIGMOID>(g, z, n, sums);
    return through_norm<NONE>(g, z, n, sums);
}

DEVICE Numbers load_part(const Part& part, size_t i, int channel) { return load(part.z + i * part.pitch + channel); }

// The sum of all parts at a pixel; `z` are what was read.
DEVICE Numbers sum_at(const Part (&parts)[8], size_t i, int channel, const Norms (&n)[PARTS], Numbers (&z)[PARTS]) {
    for (int k = 0; k < PARTS; k++) z[k] = load_part(parts[k], i, channel);
    Numbers total = activated(parts[0], z[0], n[0]);
    for (int k = 1; k < PARTS; k++) {
        const Numbers v = activated(parts[k], z[k], n[k]);
        total = each([&](int j) { return total.at[j] + v.at[j]; });
    }
    return total;
}

#if !SUMMED && !BACKWARD
// y (b, h, w, c): all channels side by side
KERNEL concatenated_forward(EIGHT(PARAMETERS), float* __restrict__ y, int c, int pixels) {
    const Part parts[8] = {EIGHT(PART)};
    const Place at = place_of(c);
    int channel = at.channel;
    const Part mine = part_of(parts, channel);
    const Norms n = norms_of(mine, channel);
    const size_t first = size_t(blockIdx.z) * pixels;
    for (int i = at.begin + at.group; i < (at.idle ? 0 : pixels); i += at.step)
        store(y + (first + i) * c + at.channel, activated(mine, load_part(mine, first + i, channel), n));
}
#elif !SUMMED
// partials (blocks, 2, c)
KERNEL concatenated_backward(
    EIGHT(PARAMETERS), const float* __restrict__ dy, int dy_pitch, int c, int pixels, double* partials
) {
    SHARED(float, scratch);
    const Part parts[8] = {EIGHT(PART)};
    const Place at = place_of(c);
    int channel = at.channel;
    const Part mine = part_of(parts, channel);
    const Norms n = norms_of(mine, channel);
    const size_t first = size_t(blockIdx.z) * pixels;
    float sums[2][VEC] = {};
    for (int i = at.begin + at.group; i < (at.idle ? 0 : pixels); i += at.step) {
        const Numbers g = load(dy + (first + i) * dy_pitch + at.channel);
        const Numbers d = through_norm(mine, g, load_part(mine, first + i, channel), n, sums);
        if (mine.dz) store(mine.dz + (first + i) * mine.channels + channel, d);
    }
    if (partials) add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
}
#elif !BACKWARD
// y (b, h, w, c): the sum
KERNEL summed_forward(EIGHT(PARAMETERS), float* __restrict__ y, int c, int pixels, double* partials, float* pivot) {
    SHARED(float, scratch);
    const Part parts[8] = {EIGHT(PART)};
    const Place at = place_of(c);
    const size_t first = size_t(blockIdx.z) * pixels;
    Norms n[PARTS];
    Numbers z[PARTS];
    for (int k = 0; k < PARTS; k++) n[k] = norms_of(parts[k], at.channel);
    const Numbers middle = BATCH ? sum_at(parts, 0, at.channel, n, z) : all(0.0f);
    if (BATCH && is_first(at)) store(pivot + at.channel, middle);
    float sums[2][VEC] = {};
    for (int i = at.begin + at.group; i < (at.idle ? 0 : pixels); i += at.step) {
        const Numbers r = sum_at(parts, first + i, at.channel, n, z);
        store(y + (first + i) * c + at.channel, r);
        if (BATCH) add_about(middle, r, sums);
    }
    if (BATCH) add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
}
#else
// partials (blocks, 2, PARTS · c)
KERNEL summed_backward(
    EIGHT(PARAMETERS), const float* __restrict__ dy, int dy_pitch, const float* y_statistics,
    const float* dstatistics, float count, int c, int pixels, double* partials
) {
    SHARED(float, scratch);
    const Part parts[8] = {EIGHT(PART)};
    const Place at = place_of(c);
    const size_t first = size_t(blockIdx.z) * pixels;
    const FromAllStatistics s = from_all_statistics(y_statistics, dstatistics, c, at.channel, count);
    Norms n[PARTS];
    Numbers z[PARTS];
    for (int k = 0; k < PARTS; k++) n[k] = norms_of(parts[k], at.channel);
    float sums[PARTS][2][VEC] = {};
    for (int i = at.begin + at.group; i < (at.idle ? 0 : pixels); i += at.step) {
        const Numbers r = sum_at(parts, first + i, at.channel, n, z);
        Numbers g = dy ? load(dy + (first + i) * dy_pitch + at.channel) : all(0.0f);
        if (BATCH) g = each([&](int j) { return with_statistics(g.at[j], r.at[j], s.at[j]); });
        for (int k = 0; k < PARTS; k++) {
            const Numbers d = through_norm(parts[k], g, z[k], n[k], sums[k]);
            if (parts[k].dz) store(parts[k].dz + (first + i) * c + at.channel, d);
        }
    }
    for (int k = 0; k < PARTS && partials; k++)
        add_up<2>(sums[k], c / VEC, scratch, partials + row_of_block() * 2 * PARTS * c + k * c, PARTS * c);
}
#endif

#if BACKWARD
// One block of threads for each of all channels side by side; `result` has for one part after another the gradients
// of means, variances, weights and biases
KERNEL finish_parts(EIGHT(PARAMETERS), const double* partials, int blocks, int c, float* result) {
    SHARED(double, scratch);
    const Part parts[8] = {EIGHT(PART)};
    int channel = blockIdx.x;
    const Part mine = part_of(parts, channel);
    const double first = total_of(partials + blockIdx.x, blocks, 2 * c, scratch);
    const double second = total_of(partials + c + blockIdx.x, blocks, 2 * c, scratch);
    if (threadIdx.x != 0 || mine.statistics == nullptr) return;
    const double inverse = rsqrt(double(mine.statistics[mine.channels + channel]) + mine.eps);
    const double scale = mine.weight[channel] * inverse;
    float* to = result + 4 * (blockIdx.x - channel) + channel;
    to[0] = float(-scale * first);
    to[mine.channels] = float(-0.5 * scale * inverse * inverse * second);
    to[2 * mine.channels] = float(inverse * second);
    to[3 * mine.channels] = float(first);
}
#endif
