// The gradients of a grouped convolution, all from one tile of the gradient of y: that of x (the convolution turned
// by half a turn, then the activation's slope and the norm's factor), the sums for those of the norm, and of weight
// and bias. Grid: tiles of all images · groups of units.
#include "grouped.cuh"

#if G == 1
using Outputs = float4;  // the channels of y in a unit
#else
using Outputs = float;
#endif

constexpr int LANES = 4 * UNITS;  // threads that sum up weights' gradients beside each other, one for a channel of x
constexpr int OUT_LANES = OUTS * UNITS;
constexpr int CHUNK = ROWS < 8 ? ROWS : 8;
constexpr int NUMBERS = TAPS + (BIASED ? 1 : 0);  // for a channel of x
constexpr int KEPT = ceil_div(NUMBERS, 32 / LANES);  // by a thread, at most, after `share_out`

struct Incoming { Outputs dy, z; };
struct Corrections {
    FromStatistics x, y, z, w;
    DEVICE float4 operator()(float4 dy, float4 v) const {
        return make_float4(
            with_statistics(dy.x, v.x, x), with_statistics(dy.y, v.y, y), with_statistics(dy.z, v.z, z),
            with_statistics(dy.w, v.w, w)
        );
    }
    DEVICE float operator()(float dy, float v) const { return with_statistics(dy, v, x); }
};

struct Share { int first, count; };  // of the numbers, that a thread has the sums of

// Adds up the numbers of the threads of a warp that are OTHER, 2·OTHER … apart. At each step of two threads one keeps
// the sums of the first half of their COUNT numbers, one those of the others: half the shuffles of whole sums.
template <int COUNT, int OTHER> DEVICE void share_out(float (&sums)[NUMBERS], Share& share) {
    if constexpr (OTHER < 32) {
        constexpr int HALF = (COUNT + 1) / 2;
        const bool upper = threadIdx.x & OTHER;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            const float behind = i + HALF < COUNT ? sums[i + HALF] : 0.0f;
            const float given = __shfl_xor_sync(0xffffffffu, upper ? sums[i] : behind, OTHER);
            sums[i] = (upper ? behind : sums[i]) + given;
        }
        share = upper ? Share{share.first + HALF, share.count - HALF} : Share{share.first, min(share.count, HALF)};
        share_out<HALF, 2 * OTHER>(sums, share);
    }
}

// Σ over the block's pixels of u · gradient of y, for all taps, and of that gradient: partials (tiles, ci, NUMBERS).
// Each thread: one channel of x, one column of the tile.
DEVICE void weight_sums(
    const float* gradients, const float* inputs, float* scratch, double* partials, const Place& at, int ci
) {
    const int lane = threadIdx.x % LANES, column = threadIdx.x / LANES, warp = threadIdx.x / 32;
    gradients += column * OUT_LANES + (G == 1 ? lane : lane / 4);
    inputs += column * LANES + lane;
    float sums[NUMBERS] = {};
#pragma unroll 1
    for (int top = 0; top < ROWS; top += CHUNK) {
        float u[CHUNK];
#pragma unroll
        for (int s = 0; s < CHUNK; s++) u[s] = inputs[(top + s) * TX * LANES];
#pragma unroll
        for (int r = 0; r < CHUNK + K - 1; r++) {
#pragma unroll
            for (int kx = 0; kx < K; kx++) {
                const float v = gradients[((top + r) * COLUMNS + kx) * OUT_LANES];
                if (BIASED && kx == K / 2 && r >= K / 2 && r < CHUNK + K / 2) sums[NUMBERS - 1] += v;
#pragma unroll
                for (int ky = 0; ky < K; ky++)
                    if (r - ky >= 0 && r - ky < CHUNK) {
                        float& sum = sums[TAPS - 1 - ky * K - kx];
                        sum = fmaf(u[r - ky], v, sum);
                    }
            }
        }
    }
    __syncthreads();
    Share share = {0, NUMBERS};
    share_out<NUMBERS, LANES>(sums, share);
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        if (i < share.count) scratch[(warp * NUMBERS + share.first + i) * LANES + lane] = sums[i];
    __syncthreads();
    for (int i = threadIdx.x; i < NUMBERS * LANES; i += T) {
        const int from = i / NUMBERS, number = i % NUMBERS, channel = (at.first_unit + from / 4) * INS + from % 4;
        double total = 0.0;
        for (int other = 0; other < T / 32; other++) total += scratch[(other * NUMBERS + number) * LANES + from];
        if (from % 4 < INS && channel < ci)
            partials[(size_t(blockIdx.x) * ci + channel) * NUMBERS + number] = total;
    }
}

// dy, z, dx, norm_partials (tiles, 2, ci) and weight_partials (tiles, ci, NUMBERS) may be null. Shared memory: weights,
// scratch of norm sums, gradients of y with halo, activated input without, over which the weights' scratch lies.
KERNEL __launch_bounds__(T) grouped_gradient(
    const float* __restrict__ dy, int dy_pitch, const float* __restrict__ z, const float* out_statistics,
    const float* dstatistics, float count, const float* __restrict__ weight, const float* __restrict__ x, int x_pitch,
    const float* statistics, const float* norm_weight, const float* norm_bias, float eps, float* __restrict__ dx,
    double* __restrict__ norm_partials, double* __restrict__ weight_partials, int h, int w, int co
) {
    SHARED(float4, weights);
    float* const norm_scratch = reinterpret_cast<float*>(weights + TAPS * UNITS);
    Outputs* const gradients = reinterpret_cast<Outputs*>(norm_scratch + (SUMMED ? 8 * T : 0));
    float4* const inputs = reinterpret_cast<float4*>(gradients + (TILE + 3) / 4 * 4);
    const Place at = place_of(h, w);
    const int ci = co * G, unit = at.first_unit + at.unit;
    const size_t image = size_t(at.image) * h * w;
    dy += dy ? image * dy_pitch : 0;
    z += BATCH ? image * co : 0;
    x += image * x_pitch;

    const auto correction = [&](int i) {
        return from_statistics(out_statistics, dstatistics, co, min(unit * OUTS + i, co - 1), count);
    };
    Corrections corrections = {correction(0), {}, {}, {}};
    if constexpr (G == 1) corrections = {correction(0), correction(1), correction(2), correction(3)};
    const auto load = [&](int pixel) {
        Incoming in = {zero<Outputs>(), zero<Outputs>()};
        if (dy) load_outputs<DY_VEC>(in.dy, dy + pixel * dy_pitch, unit, co);
        if (BATCH) load_outputs<Y_VEC>(in.z, z + pixel * co, unit, co);
        return in;
    };
    fill_tile(gradients, at, h, w, load, [&](Incoming in) { return BATCH ? corrections(in.dy, in.z) : in.dy; });
    if (WANT_X) fill_weights<true>(weights, weight, at.first_unit, ci);
    __syncthreads();

    float4 sums[S];
    if (WANT_X) correlate(gradients, weights, at, sums);

    const Norms norms = norms_of(statistics, norm_weight, norm_bias, eps, ci, unit);
    float moments[8] = {};
#pragma unroll
    for (int s = 0; s < S; s++) {
        const int row = at.top + at.row + s, column = at.left + at.column;
        const bool inside = row < h && column < w;
        const int pixel = min(row, h - 1) * w + min(column, w - 1);
        const float4 raw = load_channels<INS, X_VEC>(x + pixel * x_pitch, unit * INS, ci);
        const float4 v = NORMED ? norms(raw) : raw;
        if (WANT_W) inputs[((at.row + s) * TX + at.column) * UNITS + at.unit] = inside ? activate4<ACTIVATION>(v) : zero<float4>();
        if (!WANT_X || !inside) continue;
        const float4 g = make_float4(
            sums[s].x * slope<ACTIVATION>(v.x), sums[s].y * slope<ACTIVATION>(v.y), sums[s].z * slope<ACTIVATION>(v.z),
            sums[s].w * slope<ACTIVATION>(v.w)
        );
        const auto moment = [&](int i, float gradient, float value, Norm norm) {
            moments[i] += gradient;
            moments[4 + i] = fmaf(gradient, value - norm.mean, moments[4 + i]);
        };
        moment(0, g.x, raw.x, norms.x);
        moment(1, g.y, raw.y, norms.y);
        moment(2, g.z, raw.z, norms.z);
        moment(3, g.w, raw.w, norms.w);
        const float4 scaled = make_float4(
            g.x * norms.x.scale, g.y * norms.y.scale, g.z * norms.z.scale, g.w * norms.w.scale
        );
        if (dx) store_channels<INS, DX_VEC>(dx + (image + pixel) * ci, unit * INS, ci, NORMED ? scaled : g);
    }
    if (SUMMED)
        sum_units(moments, norm_scratch, [&](int value, int u, double total) {
            const int channel = (at.first_unit + u) * INS + value % 4;
            if (value % 4 < INS && channel < ci)
                norm_partials[(size_t(blockIdx.x) * 2 + value / 4) * ci + channel] = total;
        });
    if (!WANT_W) return;
    __syncthreads();
    weight_sums(
        reinterpret_cast<const float*>(gradients), reinterpret_cast<const float*>(inputs),
        reinterpret_cast<float*>(gradients), weight_partials, at, ci
    );
}
