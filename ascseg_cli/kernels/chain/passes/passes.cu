// One pass of a chain, or passes side by side on the same image, for evaluation. A block computes a tile of one
// image; each thread has pixels and channels of its own. What is done is in CODE: see `reading.cuh`.
#include "reading.cuh"
#include "within.cuh"

typedef float Carry[STRIP][CARRY ? share(CARRY) : 1];  // the result of the branch before

// ---- writing -----------------------------------------------------------------------------------------------

// A plane of an output pixel, from the exchange.
DEVICE float4 grown_or_shrunk(const Place& place, const float4* from, int row, int column, const Output& y) {
    if constexpr (RESIZE_OUT == resize::DOUBLE) {
        const Between r = doubled(y.top + row, place.h), c = doubled(y.left + column, place.w);
        const float4* near = from + (r.near - place.top) * TILE_W - place.left;
        const float4* far = from + (r.far - place.top) * TILE_W - place.left;
        return between(between(near[c.near], near[c.far], c.share), between(far[c.near], far[c.far], c.share), r.share);
    } else {
        from += row * SHRUNK * TILE_W + column * SHRUNK;
        if constexpr (SHRUNK == 1) return from[0];
        return larger4(larger4(from[0], from[1]), larger4(from[TILE_W], from[TILE_W + 1]));
    }
}

template <int C> DEVICE void write(const Place& place, const Output& y, int channel, const float (&v)[STRIP][share(C)]) {
    constexpr int G = planes(C);
    if constexpr (C <= 4 && RESIZE_OUT == resize::SAME) {
        if (place.split) return;
        #pragma unroll
        for (int j = 0; j < STRIP; j++) {
            const int row = y.top + place.row + j, column = y.left + place.column;
            float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
            #pragma unroll
            for (int o = 0; o < C; o++) part(four, o) = v[j][o];
            if (row < y.h && column < y.w)
                write_some<Y_WHOLE>(y.first + place_of<Y_PART>(channel, y.apart) + (row * y.w + column) * y.pitch, four, C);
        }
    } else {
        put<C>(place, v);
        #pragma unroll 2
        for (int i = threadIdx.x; i < OUT_W * OUT_H * G; i += THREADS) {
            const int g = i % G, p = i / G, row = p / OUT_W, column = p % OUT_W;
            if (y.top + row >= y.h || y.left + column >= y.w) continue;
            Number* to = y.first + place_of<Y_PART>(channel + 4 * g, y.apart);
            to += ((y.top + row) * y.w + y.left + column) * y.pitch;
            write_some<Y_WHOLE>(to, grown_or_shrunk(place, place.exchange + g * PIXELS, row, column, y), C - 4 * g);
        }
    }
}

// ---- the pass ----------------------------------------------------------------------------------------------

template <int AT, int LEFT, int C, bool LAST>
DEVICE void within(const Place& place, const Output& y, int channel, float (&v)[STRIP][share(C)], Carry& carry) {
    if constexpr (LEFT == 0 && !LAST) {
        #pragma unroll
        for (int j = 0; j < STRIP; j++)
            #pragma unroll
            for (int o = 0; o < share(C); o++) carry[j][o] = v[j][o];
    } else if constexpr (LEFT == 0) {
        write<C>(place, y, channel, v);
    } else {
        constexpr int KIND = CODE[AT], OUT = CODE[AT + 2], NUMBERS = CODE[AT + 3];
        if constexpr (KIND == kind::POINTWISE) {
            float u[STRIP][share(OUT)];
            pointwise<C, OUT, NUMBERS>(place, v, u);
            within<AT + STEP, LEFT - 1, OUT, LAST>(place, y, channel, u, carry);
        } else if constexpr (KIND == kind::ADD && CARRY) {
            #pragma unroll
            for (int j = 0; j < STRIP; j++)
                #pragma unroll
                for (int o = 0; o < share(C); o++) v[j][o] += carry[j][o];
            within<AT + STEP, LEFT - 1, C, LAST>(place, y, channel, v, carry);
        } else if constexpr (KIND >= kind::ADD) {
            float u[STRIP][share(OUT)];
            combine<KIND, C, OUT>(place, v, u);
            within<AT + STEP, LEFT - 1, OUT, LAST>(place, y, channel, u, carry);
        } else {
            if constexpr (KIND == kind::AFFINE) affine<C, NUMBERS>(place, v);
            else if constexpr (KIND == kind::NORM) layer_norm<C, NUMBERS>(place, v);
            else {
                #pragma unroll
                for (int j = 0; j < STRIP; j++)
                    #pragma unroll
                    for (int o = 0; o < share(C); o++) v[j][o] = activated<KIND>(v[j][o]);
            }
            within<AT + STEP, LEFT - 1, C, LAST>(place, y, channel, v, carry);
        }
    }
}

template <int AT, bool LAST> DEVICE void branch(const Place& place, const Output& y, int slice, Carry& carry) {
    constexpr int OVER = CODE[AT], K = CODE[AT + 1], D = CODE[AT + 2], OUT = CODE[AT + 3], STEPS = CODE[AT + 7];
    constexpr int CHANNEL = CODE[AT + 6];
    constexpr int OFF = HALO - D * (K - 1) / 2;  // a smaller border than the tile's
    const float4* first = place.tile + (place.row + OFF) * COLUMNS + place.column + OFF;
    float v[STRIP][share(OUT)];
    if constexpr (OVER == over::DENSE && TENSOR) {
        dense_tensor<CHANNELS, OUT, K, D, 0>(place, OFF, v);
    } else if constexpr (OVER == over::DENSE) {
        dense<CHANNELS, OUT, K, D, 0>(place, first, COLUMNS, PLANE, v);
    } else if constexpr (OVER == over::GROUPED && OUT == CHANNELS) {
        depthwise<OUT, K, D, 0>(place, first, COLUMNS, PLANE, v);
    } else if constexpr (OVER == over::GROUPED) {
        grouped<OUT, CHANNELS / OUT, K, D, 0>(place, first, COLUMNS, PLANE, v);
    } else if constexpr (OVER == over::MAXIMUM) {
        maximum<OUT>(place, first, v);
    } else {
        #pragma unroll
        for (int j = 0; j < STRIP; j++)
            get<OUT, share(OUT)>(first, PLANE, j * COLUMNS, place.split * share(OUT), v[j]);
    }
    within<AT + HEADER, STEPS, OUT, LAST>(place, y, CHANNEL + slice, v, carry);
}

struct Strips {
    const Output& y;
    int slice;
    Carry carry;
    template <int AT, int NUMBER> DEVICE void run(const Place& place) {
        branch<AT, !CARRY || NUMBER == BRANCHES - 1>(place, y, slice, carry);
    }
};

// x (b, hx, wx, …), other (b, h, w, …) or, for a boost, (b, …), y (b, …); h, w after x's resizing. Pitches: numbers
// from pixel to pixel. X_PART or Y_PART where x or y is so many images of as many channels each, one after another:
// (parts, b, …). Grid: tiles of all images; slices of the output channels, or branches.
KERNEL __launch_bounds__(THREADS) passes(
    const Number* x, int x_pitch, int hx, int wx, const Number* other, int other_pitch,
    Number* y, int y_pitch, const float* numbers, int h, int w, int across, int down
) {
    SHARED(float4, memory);
    Share mine = share_of_block(memory, x, x_pitch, hx, wx, y, y_pitch, numbers, h, w, across, down);
    const int strip = threadIdx.x % STRIPS;
    mine.place.split = threadIdx.x / STRIPS;
    mine.place.column = strip % TILE_W, mine.place.row = strip / TILE_W * STRIP;
    read_tile(mine.place, mine.x);
    if constexpr (OTHERS > 0) {
        const size_t other_size = BOOSTS ? size_t(other_pitch) : size_t(h) * w * other_pitch;
        read_others(mine.place, other + mine.image * other_size + mine.slice * SLICE_OUT, other_pitch);
    }
    __syncthreads();
    Strips strips = {mine.y, mine.slice * SLICE_OUT};
    branches<0, 0>(mine.place, strips);
}
