// Images doubled, halved and pooled, normalised and activated while they are loaded; gradients are gathered, so that
// no two threads write to one number. OPERATION says which; BATCH that the result's statistics are wanted (backward:
// that they have a gradient), LOADS that the gradient needs x, SUMS that the norm's gradients are wanted.
#include "pixels.cuh"

constexpr int DOUBLED = 0, HALVED = 1, POOLED_MEAN = 2, POOLED_MAX = 3, HIGH_PASSED = 4;

DEVICE float lowest() { return __int_as_float(0xff800000); }  // minus infinity

// One image of x as the operations see it: (h, w, c) normalised and activated.
struct Source {
    const float* x;
    int pitch, h, w;
    Norms n;
    DEVICE bool has(int row, int column) const { return row >= 0 && row < h && column >= 0 && column < w; }
    DEVICE Numbers raw(int row, int column) const { return load(x + size_t(row * w + column) * pitch); }
    DEVICE Numbers at(int row, int column) const { return activated<ACTIVATION>(raw(row, column), n); }
};

// Of n rows, doubled with align_corners, result r lies between a near one, n = r / 2, and a far one, r / 2 ± 1.
DEVICE float far_share(int r, int n) {
    const int i = r / 2;
    return float(r % 2 ? n - 1 - i : i) / float(2 * n - 1);
}
DEVICE int far_row(int r, int n) { return r % 2 ? min(r / 2 + 1, n - 1) : max(r / 2 - 1, 0); }

// Row `offset` (0 to 3) of the four results 2i - 1 to 2i + 2 to which row i gives a share.
DEVICE float share_of(int i, int offset, int n) {
    const int r = 2 * i - 1 + offset;
    if (r < 0 || r >= 2 * n) return 0.0f;
    return offset == 1 || offset == 2 ? 1.0f - far_share(r, n) : far_share(r, n);
}

DEVICE Numbers doubled_at(const Source& in, int r, int s) {
    const float down = far_share(r, in.h), right = far_share(s, in.w);
    const int row = far_row(r, in.h), column = far_row(s, in.w);
    const Numbers a = in.at(r / 2, s / 2), b = in.at(r / 2, column), c = in.at(row, s / 2), d = in.at(row, column);
    return each([&](int j) {
        const float near = (1.0f - right) * a.at[j] + right * b.at[j];
        const float far = (1.0f - right) * c.at[j] + right * d.at[j];
        return (1.0f - down) * near + down * far;
    });
}

// The larger one, NaN if any is.
DEVICE float larger(float most, float v) { return v > most || v != v ? v : most; }

DEVICE Numbers halved_at(const Source& in, int r, int s) {
    Numbers most = in.at(2 * r, 2 * s);
    for (int k = 1; k < 4; k++) {
        const Numbers v = in.at(2 * r + k / 2, 2 * s + k % 2);
        most = each([&](int j) { return larger(most.at[j], v.at[j]); });
    }
    return most;
}

DEVICE Numbers mean_at(const Source& in, int r, int s) {
    Numbers total = all(0.0f), middle = all(0.0f);
    for (int k = 0; k < 9; k++) {
        const int row = r + k / 3 - 1, column = s + k % 3 - 1;
        if (!in.has(row, column)) continue;
        const Numbers v = in.at(row, column);
        if (k == 4) middle = v;
        total = each([&](int j) { return total.at[j] + v.at[j]; });
    }
    return each([&](int j) {
        const float mean = total.at[j] / 9.0f;
        return OPERATION == HIGH_PASSED ? middle.at[j] - mean : mean;
    });
}

// Which of its nine pixels is a window's largest, for each channel.
struct alignas(VEC) Choices { unsigned char at[VEC]; };

// The largest of nine: the first of them, or the last NaN.
DEVICE Numbers largest_at(const Source& in, int r, int s, Choices& chosen) {
    Numbers most = all(lowest());
    for (int j = 0; j < VEC; j++) chosen.at[j] = (r > 0 ? 0 : 3) + (s > 0 ? 0 : 1);
    for (int k = 0; k < 9; k++) {
        const int row = r + k / 3 - 1, column = s + k % 3 - 1;
        if (!in.has(row, column)) continue;
        const Numbers v = in.at(row, column);
        for (int j = 0; j < VEC; j++)
            if (v.at[j] > most.at[j] || v.at[j] != v.at[j]) most.at[j] = v.at[j], chosen.at[j] = k;
    }
    return most;
}

DEVICE Numbers result_at(const Source& in, int r, int s, Choices& chosen) {
    if (OPERATION == DOUBLED) return doubled_at(in, r, s);
    if (OPERATION == HALVED) return halved_at(in, r, s);
    if (OPERATION == POOLED_MAX) return largest_at(in, r, s, chosen);
    return mean_at(in, r, s);
}

#if !BACKWARD
// x (b, h, w, c), y (b, rows, columns, c), choices as y or null
KERNEL resize_forward(
    const float* __restrict__ x, int pitch, const float* statistics, const float* weight, const float* bias, float eps,
    float* __restrict__ y, unsigned char* __restrict__ choices, int c, int h, int w, int rows, int columns,
    double* partials, float* pivot
) {
    SHARED(float, scratch);
    const Place at = place_of(c);
    Source in = {x + at.channel, pitch, h, w, norms_of(statistics, weight, bias, eps, c, at.channel)};
    Choices chosen;
    const Numbers middle = BATCH ? result_at(in, 0, 0, chosen) : all(0.0f);
    if (BATCH && is_first(at)) store(pivot + at.channel, middle);
    in.x += size_t(blockIdx.z) * h * w * pitch;
    const size_t first = size_t(blockIdx.z) * rows * columns * c + at.channel;
    float sums[2][VEC] = {};
    for (int i = at.begin + at.group; i < (at.idle ? 0 : rows * columns); i += at.step) {
        const Numbers r = result_at(in, i / columns, i % columns, chosen);
        store(y + first + size_t(i) * c, r);
        if (OPERATION == POOLED_MAX && choices)
            *reinterpret_cast<Choices*>(choices + first + size_t(i) * c) = chosen;
        if (BATCH) add_about(middle, r, sums);
    }
    if (BATCH) add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
}
#else
// One image of the result's gradient, (rows, columns), with what its statistics add.
struct Gradient {
    const float *dy, *y;  // y has pitch c
    int pitch, c, rows, columns;
    FromAllStatistics s;
    DEVICE bool has(int r, int s) const { return r >= 0 && r < rows && s >= 0 && s < columns; }
    DEVICE Numbers at(int r, int column) const {
        const size_t i = size_t(r) * columns + column;
        const Numbers g = dy ? load(dy + i * pitch) : all(0.0f);
        if (!BATCH) return g;
        const Numbers v = load(y + i * c);
        return each([&](int j) { return with_statistics(g.at[j], v.at[j], s.at[j]); });
    }
};

DEVICE Numbers doubled_gradient(const Gradient& of, const Source& in, int row, int column) {
    float across[4];
    for (int k = 0; k < 4; k++) across[k] = share_of(column, k, in.w);
    Numbers total = all(0.0f);
    for (int k = 0; k < 4; k++) {
        const int r = 2 * row - 1 + k;
        if (r < 0 || r >= of.rows) continue;
        Numbers line = all(0.0f);
        for (int m = 0; m < 4; m++) {
            const int s = 2 * column - 1 + m;
            if (s < 0 || s >= of.columns) continue;
            const Numbers g = of.at(r, s);
            line = each([&](int j) { return fmaf(across[m], g.at[j], line.at[j]); });
        }
        const float down = share_of(row, k, in.h);
        total = each([&](int j) { return fmaf(down, line.at[j], total.at[j]); });
    }
    return total;
}

// The gradient of a mean of nine, or of what such a mean leaves.
DEVICE Numbers mean_gradient(const Gradient& of, int row, int column) {
    Numbers total = all(0.0f), middle = all(0.0f);
    for (int k = 0; k < 9; k++) {
        const int r = row + k / 3 - 1, s = column + k % 3 - 1;
        if (!of.has(r, s)) continue;
        const Numbers g = of.at(r, s);
        if (k == 4) middle = g;
        total = each([&](int j) { return total.at[j] + g.at[j]; });
    }
    return each([&](int j) {
        const float mean = total.at[j] / 9.0f;
        return OPERATION == HIGH_PASSED ? middle.at[j] - mean : mean;
    });
}

// A window's gradient goes to the pixel it has chosen; `choices` are those of the image's windows, pitch c.
DEVICE Numbers max_gradient(const Gradient& of, const unsigned char* choices, int row, int column) {
    Numbers total = all(0.0f);
#pragma unroll
    for (int k = 0; k < 9; k++) {
        const int r = row + k / 3 - 1, s = column + k % 3 - 1;
        if (!of.has(r, s)) continue;
        const Numbers g = of.at(r, s);
        const Choices chosen = *reinterpret_cast<const Choices*>(choices + (size_t(r) * of.columns + s) * of.c);
        for (int j = 0; j < VEC; j++)
            if (chosen.at[j] == 8 - k) total.at[j] += g.at[j];
    }
    return total;
}

// The gradients of a window of 2 × 2 pixels; at the edges of odd sizes it is not whole, and these have none.
DEVICE void halved_gradient(const Gradient& of, const Source& in, int r, int s, Numbers (&d)[4], Numbers (&z)[4]) {
    for (int k = 0; k < 4; k++) {
        d[k] = z[k] = all(0.0f);
        if (in.has(2 * r + k / 2, 2 * s + k % 2)) z[k] = in.raw(2 * r + k / 2, 2 * s + k % 2);
    }
    if (!of.has(r, s)) return;
    const Numbers g = of.at(r, s);
    for (int j = 0; j < VEC; j++) {
        int chosen = 0;
        float most = lowest();
        for (int k = 0; k < 4; k++) {
            const float v = activate<ACTIVATION>(normed(z[k].at[j], in.n.at[j]));
            if (v > most || v != v) most = v, chosen = k;
        }
        for (int k = 0; k < 4; k++) d[k].at[j] = k == chosen ? g.at[j] : 0.0f;
    }
}

// As for resize_forward; partials (blocks, 2, c) are for the norm
KERNEL resize_backward(
    const float* __restrict__ dy, int dy_pitch, const float* __restrict__ y, const float* y_statistics,
    const float* dstatistics, float count, const unsigned char* __restrict__ choices, const float* __restrict__ x, int pitch, const float* statistics,
    const float* weight, const float* bias, float eps, float* __restrict__ dx, int c, int h, int w, int rows,
    int columns, double* partials
) {
    SHARED(float, scratch);
    const Place at = place_of(c);
    const size_t image = blockIdx.z;
    const Source in = {x + image * h * w * pitch + at.channel, pitch, h, w,
                       norms_of(statistics, weight, bias, eps, c, at.channel)};
    const Gradient of = {dy ? dy + image * rows * columns * dy_pitch + at.channel : nullptr,
                         BATCH ? y + image * rows * columns * c + at.channel : nullptr, dy_pitch, c, rows, columns,
                         from_all_statistics(y_statistics, dstatistics, c, at.channel, count)};
    if (choices) choices += image * rows * columns * c + at.channel;
    if (dx) dx += image * h * w * c + at.channel;
    float sums[2][VEC] = {};
    const int across = OPERATION == HALVED ? ceil_div(w, 2) : w, down = OPERATION == HALVED ? ceil_div(h, 2) : h;
    for (int i = at.begin + at.group; i < (at.idle ? 0 : across * down); i += at.step) {
        const int row = i / across, column = i % across;
        if (OPERATION == HALVED) {
            Numbers d[4], z[4];
            halved_gradient(of, in, row, column, d, z);
            for (int k = 0; k < 4; k++) {
                const int r = 2 * row + k / 2, s = 2 * column + k % 2;
                if (!in.has(r, s)) continue;
                const Numbers found = through_norm<ACTIVATION>(d[k], z[k], in.n, sums);
                if (dx) store(dx + size_t(r * w + s) * c, found);
            }
        } else {
            const Numbers d = OPERATION == DOUBLED    ? doubled_gradient(of, in, row, column)
                            : OPERATION == POOLED_MAX ? max_gradient(of, choices, row, column)
                                                      : mean_gradient(of, row, column);
            const Numbers z = LOADS ? in.raw(row, column) : all(0.0f);
            const Numbers found = through_norm<ACTIVATION>(d, z, in.n, sums);
            if (dx) store(dx + size_t(i) * c, found);
        }
    }
    if (SUMS) add_up<2>(sums, c / VEC, scratch, partials + row_of_block() * 2 * c, c);
}
#endif
