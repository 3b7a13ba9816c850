// The gradients of offset and weight, and what the gradient of x (deform_input.cu) has to know before it is gathered.
// A warp stays by itself until its last pixel: it keeps their offsets, then the offsets' gradients in shared memory.
#include "warp_pixels.cuh"
#include "marks.cuh"

constexpr int SUMS = TAPS * VEC;  // sums of a thread for the gradient of weight

// The sum of v over the threads of a pixel, in the first of them. Every lane takes part.
DEVICE float pixel_sum(float v, int slot) {
    constexpr int FROM = LANES > 16 ? 16 : LANES > 8 ? 8 : LANES > 4 ? 4 : LANES > 2 ? 2 : LANES > 1 ? 1 : 0;
    for (int step = FROM; step > 0; step /= 2) {
        const float other = __shfl_down_sync(0xffffffffu, v, step);
        if (slot + step < LANES) v += other;
    }
    return v;
}

// Sets the bit of the source pixel's windows in the marks of all tiles that the sample touches, if it comes from
// further than they look. It may mark a tile that would have seen the sample: that costs time alone.
DEVICE void mark_far(const Sample& s, int row, int column, int h, int w, Mark* marks) {
    if (s.row < -1) return;
    const int down = s.row - row, right = s.column - column;
    if (down >= -MARGIN && down < MARGIN && right >= -MARGIN && right < MARGIN) return;
    const Tiling t = tiling_of(h, w);
    const Mark bit = Mark(1) << (row / WINDOW * t.window_columns + column / WINDOW) / t.group;
    for (int i = max(s.row, 0) / TILE; i <= min(s.row + 1, h - 1) / TILE; i++)
        for (int j = max(s.column, 0) / TILE; j <= min(s.column + 1, w - 1) / TILE; j++)
            atomicOr(marks + 1 + size_t(blockIdx.z) * t.tiles + i * t.columns + j, bit);
}

// What a tap of one pixel gives: adds to the sums for weight; returns the thread's share of the offsets' gradients.
DEVICE float2 tap_gradients(
    const Sample& s, const Corners& k, const Numbers& dy, const Numbers& weights, float* sums
) {
    float by_row = 0.0f, by_column = 0.0f;
    for (int j = 0; j < VEC; j++) {
        const float above = k.b.at[j] - k.a.at[j], below = k.d.at[j] - k.c.at[j];
        const float upper = fmaf(above, s.right, k.a.at[j]), lower = fmaf(below, s.right, k.c.at[j]);
        const float pull = dy.at[j] * weights.at[j];
        sums[j] = fmaf(dy.at[j], fmaf(lower - upper, s.down, upper), sums[j]);
        by_row = fmaf(pull, lower - upper, by_row);
        by_column = fmaf(pull, fmaf(below - above, s.down, above), by_column);
    }
    return make_float2(by_row, by_column);
}

DEVICE bool is_finite(float v) { return fabsf(v) <= 3.402823466e38f; }

DEVICE bool all_finite(const Numbers& v) {
    bool fine = true;
    for (int j = 0; j < VEC; j++) fine = fine && is_finite(v.at[j]);
    return fine;
}

// The gradients of the warp's offsets, in `places`, to memory; with a normalisation they become those of the raw
// offsets z, and Σ g and Σ g·(z - mean) are added up by the first 18 lanes.
DEVICE void store_offset_gradients(
    const float* places, const float* offset, int pitch, const float4* norms, float* out,
    int first, int count, int lane, double (&sums)[2]
) {
    for (int i = lane; i < PLACES; i += 32) {
        const int pixel = first + i / OFFSETS;
        const float g = places[i];
        if (pixel < count) out[size_t(pixel) * OFFSETS + i % OFFSETS] = NORM ? g * norms[i % OFFSETS].y : g;
    }
#if NORM
    if (lane >= OFFSETS) return;
    float direct = 0.0f, centred = 0.0f;
    for (int pixel = 0; pixel < min(PIXELS, count - first); pixel++) {
        const float g = places[pixel * OFFSETS + lane], z = offset[(first + pixel) * pitch + lane];
        direct += g;
        centred = fmaf(g, z - norms[lane].x, centred);
    }
    sums[0] += direct;
    sums[1] += centred;
#endif
}

// Each thread's sums, over all threads of the same channels -> out (C, 9) of the block. Starts with a barrier.
DEVICE void add_weight_sums(const float (&sums)[SUMS], const Lane& at, float* scratch, double* out) {
    __syncthreads();
    for (int k = 0; k < TAPS; k++) {
        Numbers v;
        for (int j = 0; j < VEC; j++) v.at[j] = sums[k * VEC + j];
        store(scratch + threadIdx.x * SUMS + k * VEC, v);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < LANES * SUMS; i += THREADS) {
        const int slot = i / SUMS, sum = i % SUMS, channel = blockIdx.y * SLICE + slot * VEC + sum % VEC;
        double total = 0.0;
        for (int pixel = 0; pixel < WARPS * PIXELS; pixel++)
            total += scratch[(pixel / PIXELS * 32 + pixel % PIXELS * LANES + slot) * SUMS + sum];
        if (channel < C) out[channel * TAPS + sum / VEC] = total;
    }
}

// The sums of all warps -> out (2, 18). Starts with a barrier.
DEVICE void add_norm_sums(const double (&sums)[2], const Lane& at, float* shared, double* out) {
    double* const scratch = reinterpret_cast<double*>(shared);
    __syncthreads();
    if (at.lane < OFFSETS)
        for (int i = 0; i < 2; i++) scratch[(at.warp * 2 + i) * OFFSETS + at.lane] = sums[i];
    __syncthreads();
    if (threadIdx.x >= 2 * OFFSETS) return;
    double total = 0.0;
    for (int warp = 0; warp < WARPS; warp++) total += scratch[warp * 2 * OFFSETS + threadIdx.x];
    out[threadIdx.x] = total;
}

// dy, x, offset (b, h, w, their pitch), weight (C, 9) ->
// doffset (slices, b, h, w, 18), by_weight (blocks of all images, C, 9), by_norm (slices, blocks, 2, 18), marks.
// Only marks may be null. A block takes `rounds` times the pixels that its threads hold.
KERNEL __launch_bounds__(THREADS, 4) deform_gradients(
    const float* dy, int dy_pitch, const float* x, int x_pitch, const float* offset, int offset_pitch,
    const float* weight, const float* statistics, const float* gamma, const float* beta, float eps,
    float* doffset, double* by_weight, double* by_norm, Mark* marks, int h, int w, int rounds
) {
    SHARED(float, shared);
    float4* const norms = reinterpret_cast<float4*>(shared);
    float* const taps = shared + 4 * OFFSETS;
    const Lane at = lane_of();
    float* const places = taps + TAP_FLOATS + at.warp * PLACES;
    load_taps(taps, weight, blockIdx.y * SLICE);
    load_norms(norms, statistics, gamma, beta, eps);
    __syncthreads();

    const int count = h * w;
    const size_t image = size_t(blockIdx.z) * count, block = size_t(blockIdx.z) * gridDim.x + blockIdx.x;
    const size_t slice = blockIdx.y;
    dy += image * dy_pitch + at.channel;
    x += image * x_pitch + at.channel;
    offset += image * offset_pitch;
    doffset += (slice * gridDim.z * count + image) * OFFSETS;
    float sums[SUMS] = {};
    double norm_sums[2] = {};
    bool finite = true;
    for (int i = threadIdx.x; i < TAPS * SLICE; i += THREADS) finite = finite && is_finite(taps[i]);
    for (int round = 0; round < rounds; round++) {
        const int first = ((blockIdx.x * rounds + round) * WARPS + at.warp) * PIXELS, pixel = first + at.pixel;
        if (first >= count) break;
        load_offsets(places, offset, offset_pitch, norms, first, count, at.lane);
        const bool exists = at.active && pixel < count;
        const Numbers slope = exists ? load(dy + pixel * dy_pitch) : zeros();
        const int row = pixel / w, column = pixel - row * w;
        finite = finite && all_finite(slope);
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            const float2 moved = offsets_of(places, min(at.pixel, PIXELS - 1), tap);
            const Sample s = sample_of(tap, row, column, moved.x, moved.y, h, w);
            const Corners k = corners_of(s, x, x_pitch, w, exists);
            const Numbers weights = load(taps + tap * SLICE + at.slot * VEC);
            float2 g = exists ? tap_gradients(s, k, slope, weights, sums + tap * VEC) : make_float2(0.0f, 0.0f);
            g = make_float2(pixel_sum(g.x, at.slot), pixel_sum(g.y, at.slot));
            __syncwarp();  // every thread of the pixel has read the tap's offsets
            if (at.slot == 0 && at.pixel < PIXELS) {
                *reinterpret_cast<float2*>(places + at.pixel * OFFSETS + 2 * tap) = g;
                if (marks && exists) mark_far(s, row, column, h, w, marks);
            }
        }
        __syncwarp();
        store_offset_gradients(
            places, offset, offset_pitch, norms, doffset, first, count, at.lane, norm_sums
        );
    }
    if (marks && !finite) atomicOr(marks, Mark(1));
    add_weight_sums(sums, at, shared, by_weight + block * C * TAPS);
#if NORM
    const size_t blocks = size_t(gridDim.x) * gridDim.z;
    add_norm_sums(norm_sums, at, shared, by_norm + (slice * blocks + block) * 2 * OFFSETS);
#endif
}

// rows (count, columns) -> their sum, in double, always in the same order. A block takes 32 columns.
KERNEL add_rows(const double* rows, int count, int columns, float* sum) {
    SHARED(double, scratch);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int column = blockIdx.x * 32 + lane;
    double total = 0.0;
    if (column < columns) {
#pragma unroll 8
        for (int row = warp; row < count; row += warps) total += rows[size_t(row) * columns + column];
    }
    scratch[threadIdx.x] = total;
    __syncthreads();
    if (warp > 0 || column >= columns) return;
    for (int i = 1; i < warps; i++) total += scratch[i * 32 + lane];
    sum[column] = total;
}
