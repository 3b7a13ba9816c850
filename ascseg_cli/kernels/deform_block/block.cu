// The second half of a deformable convolution block, in evaluation: offsets, sampling, 1×1 convolution, gate, sum.
//
// A block owns TILE_H × TILE_W pixels and works in three steps with all threads: the offsets of all pixels, from a
// tile of p with a border of one, to shared memory; the samples, weighted, to shared memory; the result. In the first
// a thread computes the offsets of STRIP pixels for one row of taps; where pixels are few, one of SPLIT (1, 3 or 9)
// parts of their sums.
// C      channels, a multiple of 4
// CHUNK  channels whose tile and weights are in shared memory at once; divides C, a multiple of 4
#include "element.cuh"
#include "sample.cuh"

constexpr int OFFSETS = 2 * TAPS, GROUPS = 3, EACH = OFFSETS / GROUPS;  // a thread has the offsets of a row of taps
constexpr int PIXELS = TILE_H * TILE_W, STRIPS = PIXELS / STRIP, ITEMS = SPLIT * GROUPS * STRIPS;
constexpr int WIDTH = TILE_W + 2, HALO = (TILE_H + 2) * WIDTH, QUADS = C / 4, CHUNK_QUADS = CHUNK / 4;
constexpr int PITCH = C + 4;              // of a pixel's samples, so that pixels begin in different banks
constexpr bool BALANCE_SHARED = C <= 64;  // whether the 1×1 convolution's weights fit

static_assert(ITEMS <= THREADS && CHUNK % 4 == 0 && C % CHUNK == 0 && TAPS % SPLIT == 0, "");

struct Place { int row, column, h, w; size_t image; };  // the tile's first pixel; the image's size and first pixel

// Shared memory: taps (9, C), balance (C, C) if BALANCE_SHARED, offsets (SPLIT, PIXELS, 18), then p's tile
// (CHUNK_QUADS, HALO, 4) and weights (3, 9, CHUNK, 6); later samples (PIXELS, PITCH) in these two's place.
struct Memory { float *taps, *balance, *offsets, *tile, *weights, *samples; };

DEVICE Memory memory_of(float* shared) {
    Memory m;
    m.taps = shared;
    m.balance = m.taps + TAPS * C;
    m.offsets = m.balance + (BALANCE_SHARED ? C * C : 0);
    m.tile = m.offsets + ceil_div(SPLIT * PIXELS * OFFSETS, 4) * 4;
    m.weights = m.tile + HALO * CHUNK;
    m.samples = m.tile;
    return m;
}

DEVICE void load_tile(float* tile, const Element* p, int pitch, int first, const Place& at) {
#pragma unroll 4
    for (int i = threadIdx.x; i < HALO * CHUNK_QUADS; i += THREADS) {
        const int pixel = i / CHUNK_QUADS, quad = i % CHUNK_QUADS;
        const int row = at.row - 1 + pixel / WIDTH, column = at.column - 1 + pixel % WIDTH;
        const bool inside = unsigned(row) < unsigned(at.h) && unsigned(column) < unsigned(at.w);
        const float4 v = inside ? read4(p + (row * at.w + column) * pitch + first + 4 * quad) : no_floats();
        store4(tile + (quad * HALO + pixel) * 4, v);
    }
}

// weight (9, C, 18) -> (3, 9, CHUNK, 6), two numbers at a time
DEVICE void load_weights(float* weights, const float* weight, int first) {
    constexpr int PAIRS = OFFSETS / 2;
#pragma unroll 4
    for (int i = threadIdx.x; i < TAPS * CHUNK * PAIRS; i += THREADS) {
        const int pair = i % PAIRS, channel = i / PAIRS % CHUNK, tap = i / (PAIRS * CHUNK), group = pair / (EACH / 2);
        const float2 v = *reinterpret_cast<const float2*>(weight + (tap * C + first + channel) * OFFSETS + 2 * pair);
        float* const to = weights + ((group * TAPS + tap) * CHUNK + channel) * EACH + 2 * pair - group * EACH;
        *reinterpret_cast<float2*>(to) = v;
    }
}

DEVICE float part(const float4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// A thread's share of the offsets: (STRIP pixels, 6). Its pixels are STRIPS apart, so that a warp's lie side by side.
DEVICE void add_offsets(float (&sums)[STRIP][EACH], const Memory& m, int split, int group, int strip) {
    constexpr int TAPS_EACH = TAPS / SPLIT;
    int places[STRIP];
    for (int i = 0; i < STRIP; i++) {
        const int pixel = strip + i * STRIPS;
        places[i] = (pixel / TILE_W * WIDTH + pixel % TILE_W) * 4;
    }
#pragma unroll 1
    for (int tap = split * TAPS_EACH; tap < (split + 1) * TAPS_EACH; tap++) {
        const float* tile = m.tile + (tap / 3 * WIDTH + tap % 3) * 4;
        const float* weights = m.weights + (group * TAPS + tap) * CHUNK * EACH;
#pragma unroll 1
        for (int quad = 0; quad < CHUNK_QUADS; quad++, tile += HALO * 4, weights += 4 * EACH) {
            float w[4 * EACH];
            for (int i = 0; i < EACH; i++) *reinterpret_cast<float4*>(w + 4 * i) = load4(weights + 4 * i);
            for (int i = 0; i < STRIP; i++) {
                const float4 v = load4(tile + places[i]);
                for (int n = 0; n < 4; n++)
                    for (int k = 0; k < EACH; k++) sums[i][k] = fmaf(part(v, n), w[n * EACH + k], sums[i][k]);
            }
        }
    }
}

// The offsets of all pixels -> m.offsets (PIXELS, 18). Ends with a barrier.
DEVICE void find_offsets(
    const Memory& m, const Element* p, int pitch, const float* weight, const float* bias, const Place& at
) {
    const int item = threadIdx.x, split = item / (GROUPS * STRIPS);
    const int group = item / STRIPS % GROUPS, strip = item % STRIPS;
    float sums[STRIP][EACH] = {};
    for (int first = 0; first < C; first += CHUNK) {
        if (first > 0) __syncthreads();
        load_tile(m.tile, p, pitch, first, at);
        load_weights(m.weights, weight, first);
        __syncthreads();
        if (item < ITEMS) add_offsets(sums, m, split, group, strip);
    }
    if (item < ITEMS)
        for (int i = 0; i < STRIP; i++)
            for (int k = 0; k < EACH; k++) {
                const int offset = group * EACH + k;
                m.offsets[(split * PIXELS + strip + i * STRIPS) * OFFSETS + offset] =
                    sums[i][k] + (split == 0 ? bias[offset] : 0.0f);
            }
    __syncthreads();
    if (SPLIT == 1) return;
    for (int i = threadIdx.x; i < PIXELS * OFFSETS; i += THREADS) {
        float total = m.offsets[i];
        for (int k = 1; k < SPLIT; k++) total += m.offsets[k * PIXELS * OFFSETS + i];
        m.offsets[i] = total;
    }
    __syncthreads();
}

// One pixel's weighted samples of four channels; p begins at the channels.
DEVICE float4 sampled(
    const Element* p, int pitch, const float* offsets, const float* taps, int row, int column, const Place& at
) {
    float4 total = no_floats();
#pragma unroll 3
    for (int tap = 0; tap < TAPS; tap++) {
        const float2 moved = *reinterpret_cast<const float2*>(offsets + 2 * tap);
        const Sample s = sample_of(tap, row, column, moved.x, moved.y, at.h, at.w);
        const Element* const from = p + (s.row * at.w + s.column) * pitch;
        const float4 a = s.above && s.before ? read4(from) : no_floats();
        const float4 b = s.above && s.after ? read4(from + pitch) : no_floats();
        const float4 c = s.below && s.before ? read4(from + at.w * pitch) : no_floats();
        const float4 d = s.below && s.after ? read4(from + (at.w + 1) * pitch) : no_floats();
        const float up = 1.0f - s.down, left = 1.0f - s.right;
        float4 value = fma4(up * left, a, no_floats());
        value = fma4(up * s.right, b, value);
        value = fma4(s.down * left, c, value);
        value = fma4(s.down * s.right, d, value);
        const float4 w = load4(taps + tap * C);
        total.x = fmaf(w.x, value.x, total.x);
        total.y = fmaf(w.y, value.y, total.y);
        total.z = fmaf(w.z, value.z, total.z);
        total.w = fmaf(w.w, value.w, total.w);
    }
    return total;
}

DEVICE float4 gated(float4 v, float4 f) {
    return make_float4(
        fmaf(gelu(v.x), f.x, f.x), fmaf(gelu(v.y), f.y, f.y), fmaf(gelu(v.z), f.z, f.z), fmaf(gelu(v.w), f.w, f.w)
    );
}

// Four channels of a pixel's 1×1 convolution; balance (C, C), input first, begins at the channels.
DEVICE float4 balanced(const float* samples, const float* balance, float4 total) {
#pragma unroll 2
    for (int i = 0; i < C; i += 4) {
        const float4 q = load4(samples + i);
        for (int n = 0; n < 4; n++) total = fma4(part(q, n), load4(balance + (i + n) * C), total);
    }
    return total;
}

// p, f, m (b, h, w, their pitch; m may be null); offset_weight (9, C, 18), weight (C, 9), balance (C, C), input first
// -> e (b, h, w, C). The grid is (tiles of an image, 1, images).
KERNEL __launch_bounds__(THREADS, 768 / THREADS) deform_block(
    const Element* p, int p_pitch, const Element* f, int f_pitch, const Element* added, int added_pitch,
    const float* offset_weight, const float* offset_bias, const float* weight,
    const float* balance_weight, const float* balance_bias, Element* e, int h, int w
) {
    SHARED(float, shared);
    const Memory m = memory_of(shared);
    const int columns = ceil_div(w, TILE_W), row_of_tile = blockIdx.x / columns;
    const int column_of_tile = blockIdx.x - row_of_tile * columns;
    const Place at = {row_of_tile * TILE_H, column_of_tile * TILE_W, h, w, size_t(blockIdx.z) * h * w};
    p += at.image * p_pitch;
    for (int i = threadIdx.x; i < TAPS * C; i += THREADS) m.taps[i] = weight[i % C * TAPS + i / C];
    if (BALANCE_SHARED)
        for (int i = 4 * threadIdx.x; i < C * C; i += 4 * THREADS) store4(m.balance + i, load4(balance_weight + i));
    find_offsets(m, p, p_pitch, offset_weight, offset_bias, at);

#pragma unroll 1
    for (int i = threadIdx.x; i < PIXELS * QUADS; i += THREADS) {
        const int pixel = i / QUADS, channel = i % QUADS * 4;
        const int row = at.row + pixel / TILE_W, column = at.column + pixel % TILE_W;
        if (row >= h || column >= w) continue;
        const float* const offsets = m.offsets + pixel * OFFSETS;
        const float4 q = sampled(p + channel, p_pitch, offsets, m.taps + channel, row, column, at);
        store4(m.samples + pixel * PITCH + channel, q);
    }
    __syncthreads();

    const float* const balance = BALANCE_SHARED ? m.balance : balance_weight;
#pragma unroll 1
    for (int i = threadIdx.x; i < PIXELS * QUADS; i += THREADS) {
        const int pixel = i / QUADS, channel = i % QUADS * 4;
        const int row = at.row + pixel / TILE_W, column = at.column + pixel % TILE_W;
        if (row >= h || column >= w) continue;
        const size_t place = at.image + row * w + column;
        const float4 v = balanced(m.samples + pixel * PITCH, balance + channel, load4(balance_bias + channel));
        float4 y = gated(v, read4(f + place * f_pitch + channel));
        if (added) y = fma4(1.0f, read4(added + place * added_pitch + channel), y);
        write4(e + place * C + channel, y);
    }
}
