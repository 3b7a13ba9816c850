// How a block's part of an image comes into shared memory, and what its passes are.
//
// What is done is in CODE, known to the compiler: for each branch
//     over, k, dilation, channels after it, where its numbers begin, their count, its first channel in y, steps
// and for each step within a pixel
//     kind, channels before, channels after, where its numbers are in the branch's.
#pragma once
#include "tensor.cuh"

constexpr int CODE[] = {PASSES};
constexpr int HEADER = 8, STEP = 4;

constexpr int GROWN = RESIZE_OUT == resize::DOUBLE ? 2 : 1, SHRUNK = RESIZE_OUT == resize::HALVE ? 2 : 1;
constexpr int EDGE = RESIZE_OUT == resize::DOUBLE ? 1 : 0;  // pixels at a tile's rim that only its neighbours need
constexpr int OUT_W = (TILE_W - 2 * EDGE) * GROWN / SHRUNK, OUT_H = (TILE_H - 2 * EDGE) * GROWN / SHRUNK;

struct Output { Number* first; int pitch, h, w, top, left; size_t apart; };
struct Input { const Number* first; int pitch, h, w; size_t apart; };

// Where a channel of a pixel lies, in an image or in so many images of PART channels each.
template <int PART> DEVICE size_t place_of(int channel, size_t apart) {
    return PART ? channel / max(PART, 1) * apart + channel % max(PART, 1) : channel;
}

DEVICE float4 larger4(float4 a, float4 b) {
    return {fmaxf(a.x, b.x), fmaxf(a.y, b.y), fmaxf(a.z, b.z), fmaxf(a.w, b.w)};
}

DEVICE float4 less(float4 a, float4 b) { return {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w}; }

DEVICE float4 onward(float4 a, float4 step, float share) {
    return {fmaf(step.x, share, a.x), fmaf(step.y, share, a.y), fmaf(step.z, share, a.z), fmaf(step.w, share, a.w)};
}

DEVICE float4 between(float4 a, float4 b, float share) { return onward(a, less(b, a), share); }

DEVICE float4 scaled(float4 v, float4 scale, float4 shift) {
    return {fmaf(v.x, scale.x, shift.x), fmaf(v.y, scale.y, shift.y),
            fmaf(v.z, scale.z, shift.z), fmaf(v.w, scale.w, shift.w)};
}

// Where place i of a doubled line of n numbers lies, corners aligned: `share` of the way from `near` to `far`.
struct Between { int near, far; float share; };
DEVICE Between doubled(int i, int n) {
    const int m = i / 2;
    if (i % 2 == 0) return {m, max(m - 1, 0), float(m) / float(2 * n - 1)};
    return {m, min(m + 1, n - 1), float(n - 1 - m) / float(2 * n - 1)};
}

template <bool WHOLE> DEVICE float4 resized(const Input& x, int row, int column, int first, int count) {
    const Number* from = x.first + place_of<X_PART>(first, x.apart);
    const auto at = [&](int r, int c) { return read_some<WHOLE>(from + (r * x.w + c) * x.pitch, count); };
    if constexpr (RESIZE_IN == resize::HALVE) {
        const float4 a = larger4(at(2 * row, 2 * column), at(2 * row, 2 * column + 1));
        return larger4(a, larger4(at(2 * row + 1, 2 * column), at(2 * row + 1, 2 * column + 1)));
    } else {
        return at(row, column);
    }
}

// Four channels of a pixel into the tile; 0 outside the image.
DEVICE void keep(const Place& place, int line, int column, int g, float4 v) {
    constexpr int ROW = round_up(padded(CHANNELS), 4);
    const int row = place.top - HALO + line, left = place.left - HALO + column, pixel = line * COLUMNS + column;
    if (row < 0 || row >= place.h || left < 0 || left >= place.w) v = {0.0f, 0.0f, 0.0f, 0.0f};
    else if constexpr (AFFINE_AT >= 0) {
        const float* factors = place.source + AFFINE_AT + 4 * g;
        v = scaled(v, load4(factors), load4(factors + ROW));
    }
    if constexpr (TENSOR == HALVES)
        reinterpret_cast<uint2*>(place.tile + g / 2 * PLANE + pixel)[g % 2] = {rounded2(v.x, v.y), rounded2(v.z, v.w)};
    else if constexpr (TENSOR == PAIRS)
        reinterpret_cast<uint4*>(place.tile)[g * PLANE + pixel] = paired(v);
    else
        place.tile[g * PLANE + pixel] = v;
}

constexpr int FOURS = TENSOR == HALVES ? 2 * tensor_planes(CHANNELS) : planes(CHANNELS);  // of a tile's pixel

// Two rows and columns of a doubled image lie between the same four pixels, where the first row and column are odd.
// A thread goes down two columns: what lies between two pixels of a row serves the rows above and below it.
DEVICE void read_doubled(const Place& place, const Input& x) {
    constexpr int ODD = (HALO + EDGE + 1) % 2;  // tiles have even sides
    constexpr int ACROSS = (COLUMNS + ODD + 1) / 2, DOWN = (LINES + ODD + 1) / 2, SPAN = ACROSS * FOURS;
    constexpr int PARTS = THREADS >= 2 * SPAN ? THREADS / SPAN : 1, EACH = (DOWN + PARTS - 1) / PARTS;
    const float per_column = 1.0f / float(2 * x.w - 1), per_row = 1.0f / float(2 * x.h - 1);
    #pragma unroll 1
    for (int i = threadIdx.x; i < PARTS * SPAN; i += THREADS) {
        const int g = i % FOURS, column = i / FOURS % ACROSS * 2 - ODD, begin = i / SPAN * EACH;
        const int before = (place.left - HALO + column - 1) / 2, above = (place.top - HALO - ODD - 1) / 2 + begin;
        const float share[2] = {float(x.w - 1 - before) * per_column, -float(before + 1) * per_column};
        const auto inside = [](int place, int n) { return max(0, min(place, n - 1)); };
        const Number* from = x.first + place_of<X_PART>(4 * g, x.apart);
        const int near = inside(before, x.w) * x.pitch, far = inside(before + 1, x.w) * x.pitch;
        float4 upper[2], lower[2];
        const auto read = [&](int row, float4 (&two)[2]) {
            const Number* line = from + inside(row, x.h) * x.w * x.pitch;
            float4 a = {0.0f, 0.0f, 0.0f, 0.0f}, b = a;
            if (4 * g < CHANNELS) {
                a = read_some<X_WHOLE>(line + near, CHANNELS - 4 * g);
                b = read_some<X_WHOLE>(line + far, CHANNELS - 4 * g);
            }
            const float4 step = less(b, a);
            two[0] = onward(a, step, share[0]), two[1] = onward(b, step, share[1]);
        };
        read(above, upper);
        #pragma unroll 2
        for (int k = 0; k < min(EACH, DOWN - begin); k++) {
            const int row = above + k, line = 2 * (begin + k) - ODD;
            read(row + 1, lower);
            #pragma unroll
            for (int c = 0; c < 2; c++) {
                const float4 step = less(lower[c], upper[c]);
                const float4 first = onward(upper[c], step, float(x.h - 1 - row) * per_row);
                const float4 second = onward(lower[c], step, -float(row + 1) * per_row);
                upper[c] = lower[c];
                if (column + c < 0 || column + c >= COLUMNS) continue;
                if (line >= 0) keep(place, line, column + c, g, first);
                if (line + 1 < LINES) keep(place, line + 1, column + c, g, second);
            }
        }
    }
}

// EACH bfloat16 channels at once, eight or four, which stay as they are.
template <int EACH> DEVICE void read_unchanged(const Place& place, const Input& x) {
    constexpr int ALL = round_up(CHANNELS, 8) / EACH, UNIT = X_PART ? X_PART / EACH : ALL;  // what lies together
    #pragma unroll 4
    for (int i = threadIdx.x; i < PLANE * ALL; i += THREADS) {
        const int channel = (i / (UNIT * PLANE) * UNIT + i % UNIT) * EACH, pixel = i / UNIT % PLANE;
        const int row = place.top - HALO + pixel / COLUMNS, left = place.left - HALO + pixel % COLUMNS;
        const bool inside = row >= 0 && row < place.h && left >= 0 && left < place.w && channel < CHANNELS;
        const Number* from = x.first + place_of<X_PART>(channel, x.apart);
        Number* to = reinterpret_cast<Number*>(place.tile + channel / 8 * PLANE + pixel) + channel % 8;
        if constexpr (RESIZE_IN == resize::HALVE) {
            uint4 v = {0u, 0u, 0u, 0u};
            if (inside) {
                const auto at = [&](int r, int c) {
                    return *reinterpret_cast<const uint4*>(from + ((2 * row + r) * x.w + 2 * left + c) * x.pitch);
                };
                v = larger8(larger8(at(0, 0), at(0, 1)), larger8(at(1, 0), at(1, 1)));
            }
            *reinterpret_cast<uint4*>(to) = v;
        } else {
            copy_async<2 * EACH>(to, inside ? from + (row * x.w + left) * x.pitch : x.first, inside);
        }
    }
    copies_done();
}

DEVICE void read_tile(const Place& place, const Input& x) {
    if constexpr (RESIZE_IN == resize::DOUBLE) { read_doubled(place, x); return; }
    if constexpr (TENSOR == HALVES && AFFINE_AT < 0) {
        if constexpr (X_EIGHTS) { read_unchanged<8>(place, x); return; }
        else if constexpr (X_WHOLE && RESIZE_IN == resize::SAME) { read_unchanged<4>(place, x); return; }
    }
    constexpr int UNIT = X_PART ? X_PART / 4 : FOURS;  // what lies together in memory
    #pragma unroll 4
    for (int i = threadIdx.x; i < PLANE * FOURS; i += THREADS) {
        const int g = i / (UNIT * PLANE) * UNIT + i % UNIT, pixel = i / UNIT % PLANE;
        const int line = pixel / COLUMNS, column = pixel % COLUMNS;
        const int row = place.top - HALO + line, left = place.left - HALO + column;
        float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row >= 0 && row < place.h && left >= 0 && left < place.w && 4 * g < CHANNELS)
            v = resized<X_WHOLE>(x, row, left, 4 * g, CHANNELS - 4 * g);
        keep(place, line, column, g, v);
    }
}

DEVICE void read_others(const Place& place, const Number* other, int pitch) {
    constexpr int G = planes(OTHERS), COUNT = BOOSTS ? 1 : PIXELS;
    #pragma unroll 4
    for (int i = threadIdx.x; i < COUNT * G; i += THREADS) {
        const int g = i % G, p = i / G;
        const int row = BOOSTS ? 0 : place.top + p / TILE_W, column = BOOSTS ? 0 : place.left + p % TILE_W;
        float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
        if (row >= 0 && row < place.h && column >= 0 && column < place.w)
            v = read_some<O_WHOLE>(other + (row * place.w + column) * pitch + 4 * g, OTHERS - 4 * g);
        place.others[g * COUNT + p] = v;
    }
}

// ---- a block's part ----------------------------------------------------------------------------------------

template <int AT, int NUMBER> DEVICE void preload(float* to, const float* from) {
    if constexpr (SPREAD && NUMBER < BRANCHES) {
        constexpr int BEGIN = CODE[AT + 4], COUNT = CODE[AT + 5];
        if (blockIdx.y == NUMBER) copy_numbers(to, from + BEGIN, COUNT);
        preload<AT + HEADER + STEP * CODE[AT + 7], NUMBER + 1>(to, from);
    } else if constexpr (!SPREAD) {
        copy_numbers(to, from, PRELOADED);
    }
}

struct Share { Place place; Input x; Output y; size_t image; int slice; };

// The block's tile, where its weights are brought, and where the rest lies; `numbers` begin those of all slices.
DEVICE Share share_of_block(
    float4* memory, const Number* x, int x_pitch, int hx, int wx, Number* y, int y_pitch,
    const float* numbers, int h, int w, int across, int down
) {
    const int tile = blockIdx.x % (across * down), row = tile / across, column = tile % across;
    const size_t images = gridDim.x / (across * down), image = blockIdx.x / (across * down);
    const int hy = h * GROWN / SHRUNK, wy = w * GROWN / SHRUNK, slice = SPREAD ? 0 : blockIdx.y;
    float* kept = reinterpret_cast<float*>(memory + NUMBERS_AT);
    Place place;
    place.top = row * (TILE_H - 2 * EDGE) - EDGE, place.left = column * (TILE_W - 2 * EDGE) - EDGE;
    place.h = h, place.w = w;
    place.numbers = kept, place.staged = kept, place.source = numbers + slice * SLICE_NUMBERS;
    place.tile = memory, place.exchange = memory + EXCHANGE_AT, place.others = memory + OTHERS_AT;
    if constexpr (PRELOAD) preload<0, 0>(kept, place.source);
    x += image * (size_t(hx) * wx * x_pitch) + slice * SLICE_IN;
    y += image * (size_t(hy) * wy * y_pitch);
    return {place, {x, x_pitch, hx, wx, images * hx * wx * x_pitch},
            {y, y_pitch, hy, wy, row * OUT_H, column * OUT_W, images * hy * wy * y_pitch}, image, slice};
}

// Runs the branches that are the block's, each with its numbers: work.run<where its code begins, which it is>(place)
template <int AT, int NUMBER, typename Work> DEVICE void branches(Place& place, Work& work) {
    if constexpr (NUMBER < BRANCHES) {
        constexpr int BEGIN = CODE[AT + 4];
        if (!SPREAD || blockIdx.y == NUMBER) {
            const float* numbers = place.numbers;
            const float* source = place.source;
            place.source += BEGIN;
            if (!PRELOAD) place.numbers = place.source;
            else if (!SPREAD) place.numbers += BEGIN;
            work.template run<AT, NUMBER>(place);
            place.numbers = numbers;
            place.source = source;
        }
        branches<AT + HEADER + STEP * CODE[AT + 7], NUMBER + 1>(place, work);
    }
}
