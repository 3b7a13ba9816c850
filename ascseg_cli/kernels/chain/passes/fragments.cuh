// Steps on what a warp's threads hold after a product on tensor cores: with g = lane / 4 and t = lane % 4 a thread has
// the channels 8n + 2t and the next, of the pixels g and g + 8 of each line. Nothing goes through shared memory: two
// eighths of channels, rounded to bfloat16, are the rows of the next product.
#pragma once
#include "reading.cuh"
#include "within.cuh"

DEVICE constexpr int eighths(int c) { return (c + 7) / 8; }

template <int C, int M> using Lines = float[M][eighths(C)][4];  // channels, lines

// The most channels of a branch after what happens over neighbours.
template <int AT, int NUMBER> DEVICE constexpr int widest() {
    if constexpr (NUMBER == BRANCHES) {
        return 1;
    } else {
        constexpr int MINE = CODE[AT + 3], REST = widest<AT + HEADER + STEP * CODE[AT + 7], NUMBER + 1>();
        return MINE > REST ? MINE : REST;
    }
}

DEVICE int first_channel() { return threadIdx.x % 4 * 2; }

// Two of C numbers of the channels, as `row` in packing.py lays them out.
template <int C> DEVICE float2 pair_of(const float* numbers, int channel) {
    if (channel >= C) return {0.0f, 0.0f};
    return *reinterpret_cast<const float2*>(numbers + channel);
}

// Two channels of a pixel as bfloat16; 0 beyond the last.
template <bool WHOLE, int C> DEVICE unsigned read_pair(const Number* pixel, int channel) {
    if (channel >= C) return 0u;
    if constexpr (WHOLE) return *reinterpret_cast<const unsigned*>(pixel);
    return pixel[0] | (channel + 1 < C ? unsigned(pixel[1]) << 16 : 0u);
}

template <bool WHOLE, int C> DEVICE void write_pair(Number* pixel, int channel, unsigned pair) {
    if (channel >= C) return;
    if constexpr (WHOLE) { *reinterpret_cast<unsigned*>(pixel) = pair; return; }
    pixel[0] = Number(pair);
    if (channel + 1 < C) pixel[1] = Number(pair >> 16);
}

// A block's pixel that a thread holds: the line, and the first eight pixels or the second.
struct Spot { int row, column; };
DEVICE Spot spot_of(int top, int left, int m, int half) {
    return {top + m, left + half * 8 + int(threadIdx.x) % 32 / 4};
}

// The lines of an image, each number of a pair in its place; 0 outside.
template <bool WHOLE, int PART, int C, int M>
DEVICE void fetch(const Input& x, int top, int left, unsigned (&pairs)[M][eighths(C)][2]) {
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const Spot at = spot_of(top, left, m, half);
            const bool inside = at.row < x.h && at.column < x.w;
            const Number* from = x.first + (at.row * x.w + at.column) * x.pitch;
            #pragma unroll
            for (int n = 0; n < eighths(C); n++) {
                const int channel = 8 * n + first_channel();
                pairs[m][n][half] = inside ? read_pair<WHOLE, C>(from + place_of<PART>(channel, x.apart), channel) : 0u;
            }
        }
}

template <int C, int M> DEVICE void spread_out(const unsigned (&pairs)[M][eighths(C)][2], Lines<C, M>& v) {
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int n = 0; n < eighths(C); n++)
            #pragma unroll
            for (int i = 0; i < 4; i++) v[m][n][i] = (i % 2 ? high_of : low_of)(pairs[m][n][i / 2]);
}

template <bool WHOLE, int PART, int C, int M> DEVICE void of_image(const Input& x, int top, int left, Lines<C, M>& v) {
    unsigned pairs[M][eighths(C)][2];
    fetch<WHOLE, PART, C, M>(x, top, left, pairs);
    spread_out<C, M>(pairs, v);
}

// ---- steps -------------------------------------------------------------------------------------------------

// The sums of v with weights, both as sums of two bfloat16 numbers: high · high + low · high + high · low, so that
// nothing is rounded to bfloat16 between steps. Numbers: biases, then weights as `dense_lines` wants those of one tap
// whose inputs are the high parts of all channels, the low parts, and the high parts again.
template <int C, int OUT, int AT, int M>
DEVICE void multiplied(const Place& place, const Lines<C, M>& v, Lines<OUT, M>& u) {
    constexpr int N = eighths(C), COUNT = eighths(OUT), PLANES = 3 * N;
    const uint2* weights = reinterpret_cast<const uint2*>(place.numbers + AT + round_up(padded(OUT), 4));
    #pragma unroll
    for (int n = 0; n < COUNT; n++) {
        const float2 bias = pair_of<OUT>(place.numbers + AT, 8 * n + first_channel());
        #pragma unroll
        for (int m = 0; m < M; m++) u[m][n][0] = u[m][n][2] = bias.x, u[m][n][1] = u[m][n][3] = bias.y;
    }
    #pragma unroll
    for (int m = 0; m < M; m++) {
        unsigned parts[2 * N][2];  // high, then low
        #pragma unroll
        for (int n = 0; n < N; n++)
            #pragma unroll
            for (int half = 0; half < 2; half++) {
                const float *of = v[m][n] + 2 * half;
                const unsigned high = rounded2(of[0], of[1]);
                parts[n][half] = high;
                parts[N + n][half] = rounded2(of[0] - low_of(high), of[1] - high_of(high));
            }
        #pragma unroll
        for (int p = 0; p < PLANES; p += 2) {
            const unsigned* first = parts[p % (2 * N)];
            const unsigned* second = parts[(p + 1) % (2 * N)];
            const bool last = p + 1 == PLANES;
            const unsigned a[4] = {first[0], first[1], last ? 0u : second[0], last ? 0u : second[1]};
            #pragma unroll
            for (int n = 0; n < COUNT; n++)
                multiply(u[m][n], a, weights[(p / 2 * COUNT + n) * 32 + threadIdx.x % 32]);
        }
    }
}

DEVICE float sum_of_four(float v) {  // threads that share pixels
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}

// Numbers: eps and three unused, weights, biases.
template <int C, int AT, int M> DEVICE void normalised(const Place& place, Lines<C, M>& v) {
    constexpr int N = eighths(C), ROW = round_up(padded(C), 4);
    const float* numbers = place.numbers + AT;
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int half = 0; half < 4; half += 2) {
            float mean = 0.0f, variance = 0.0f;
            #pragma unroll
            for (int n = 0; n < N; n++) mean += v[m][n][half] + v[m][n][half + 1];  // those beyond the last are 0
            mean = sum_of_four(mean) / C;
            #pragma unroll
            for (int n = 0; n < N; n++)
                #pragma unroll
                for (int i = 0; i < 2; i++) {
                    const float off = 8 * n + first_channel() + i < C ? v[m][n][half + i] - mean : 0.0f;
                    variance = fmaf(off, off, variance);
                    v[m][n][half + i] = off;
                }
            const float scale = rsqrtf(sum_of_four(variance) / C + numbers[0]);
            #pragma unroll
            for (int n = 0; n < N; n++) {
                const float2 weight = pair_of<C>(numbers + 4, 8 * n + first_channel());
                const float2 bias = pair_of<C>(numbers + 4 + ROW, 8 * n + first_channel());
                v[m][n][half] = fmaf(v[m][n][half] * scale, weight.x, bias.x);
                v[m][n][half + 1] = fmaf(v[m][n][half + 1] * scale, weight.y, bias.y);
            }
        }
}

// Numbers: factors, summands.
template <int C, int AT, int M> DEVICE void scaled_by(const Place& place, Lines<C, M>& v) {
    #pragma unroll
    for (int n = 0; n < eighths(C); n++) {
        const float2 scale = pair_of<C>(place.numbers + AT, 8 * n + first_channel());
        const float2 shift = pair_of<C>(place.numbers + AT + round_up(padded(C), 4), 8 * n + first_channel());
        #pragma unroll
        for (int m = 0; m < M; m++)
            #pragma unroll
            for (int i = 0; i < 4; i++)
                v[m][n][i] = fmaf(v[m][n][i], i % 2 ? scale.y : scale.x, i % 2 ? shift.y : shift.x);
    }
}

// ---- writing -----------------------------------------------------------------------------------------------

// The lines from (top, left) of the tile on, to y's channels from `first` on.
template <int C, int M> DEVICE void write_lines(const Output& y, int first, int top, int left, const Lines<C, M>& v) {
    #pragma unroll
    for (int m = 0; m < M; m++)
        #pragma unroll
        for (int half = 0; half < 2; half++) {
            const Spot at = spot_of(y.top + top, y.left + left, m, half);
            if (at.row >= y.h || at.column >= y.w) continue;
            Number* to = y.first + (at.row * y.w + at.column) * y.pitch;
            #pragma unroll
            for (int n = 0; n < eighths(C); n++) {
                const int channel = 8 * n + first_channel();
                const unsigned pair = rounded2(v[m][n][2 * half], v[m][n][2 * half + 1]);
                write_pair<Y_WHOLE, C>(to + place_of<Y_PART>(first + channel, y.apart), channel, pair);
            }
        }
}

// The largest of each two by two pixels. Every second thread has a pair of the line's first eight pixels, the others
// one of the second.
template <int C, int M> DEVICE void write_halved(const Output& y, int first, int top, int left, const Lines<C, M>& v) {
    const int g = threadIdx.x % 32 / 4, column = y.left + left / 2 + g / 2 + g % 2 * 4;
    #pragma unroll
    for (int m = 0; m < M; m += 2) {
        const int row = y.top + (top + m) / 2;
        Number* to = y.first + (row * y.w + column) * y.pitch;
        #pragma unroll
        for (int n = 0; n < eighths(C); n++) {
            unsigned of[2];
            #pragma unroll
            for (int half = 0; half < 2; half++) {
                const float *above = v[m][n] + 2 * half, *below = v[min(m + 1, M - 1)][n] + 2 * half;
                of[half] = rounded2(fmaxf(above[0], below[0]), fmaxf(above[1], below[1]));
            }
            const unsigned beside = __shfl_xor_sync(~0u, g % 2 ? of[0] : of[1], 4);
            const int channel = 8 * n + first_channel();
            if (row < y.h && column < y.w)
                write_pair<Y_WHOLE, C>(
                    to + place_of<Y_PART>(first + channel, y.apart), channel, larger2(g % 2 ? of[1] : of[0], beside)
                );
        }
    }
}
