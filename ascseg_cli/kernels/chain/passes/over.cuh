// What happens over neighbours in a pass, on a tile of float32 in shared memory: convolutions of three kinds, and the
// largest of 3×3.
#pragma once
#include "passes.cuh"

// One plane of inputs and one column of taps: K taps one below the other, for every output of the thread.
template <int K, int D, int INPUTS, int N, int OUT>
DEVICE void dense_column(const float4* column, int pitch, const float* weights, float (&v)[STRIP][N]) {
    constexpr bool SHARE = D < STRIP;  // neighbouring taps see the same pixels
    constexpr int REACH = SHARE ? STRIP + (K - 1) * D : STRIP;
    float4 x[REACH];
    if constexpr (SHARE) {
        #pragma unroll
        for (int r = 0; r < REACH; r++) x[r] = column[r * pitch];
    }
    #pragma unroll
    for (int r = 0; r < K; r++) {
        if constexpr (!SHARE) {
            #pragma unroll
            for (int j = 0; j < STRIP; j++) x[j] = column[(r * D + j) * pitch];
        }
        #pragma unroll
        for (int i = 0; i < INPUTS; i++) {
            const float* row = weights + (r * INPUTS + i) * OUT;
            float weight[N];
            if constexpr (N % 4 == 0) {
                #pragma unroll
                for (int o = 0; o < N; o += 4) {
                    const float4 four = load4(row + o);
                    weight[o] = four.x, weight[o + 1] = four.y, weight[o + 2] = four.z, weight[o + 3] = four.w;
                }
            } else {
                #pragma unroll
                for (int o = 0; o < N; o++) weight[o] = row[o];
            }
            #pragma unroll
            for (int j = 0; j < STRIP; j++)
                #pragma unroll
                for (int o = 0; o < N; o++) v[j][o] = fmaf(part(x[SHARE ? r * D + j : j], i), weight[o], v[j][o]);
        }
    }
}

constexpr int EXACT_SUM = 256;  // products that may be added one by one; more are summed by parts, lest errors add up

// Every output sums over all inputs. Numbers: biases, then [plane][column of taps][tap][input of the plane][output].
template <int C, int OUT, int K, int D, int AT>
DEVICE void dense(const Place& place, const float4* first, int pitch, int plane, float (&v)[STRIP][share(OUT)]) {
    constexpr int N = share(OUT), INPUTS = C < 4 ? C : 4, UNIT = round_up(K * INPUTS * padded(OUT), 4);
    constexpr int UNITS = planes(C) * K, FIT = STAGED / UNIT > 0 ? STAGED / UNIT : 1;
    constexpr int CHUNK = PRELOAD ? UNITS : FIT < UNITS ? FIT : UNITS;
    float bias[N];
    row_of<OUT>(place, place.numbers + AT, bias);
    #pragma unroll
    for (int j = 0; j < STRIP; j++)
        #pragma unroll
        for (int o = 0; o < N; o++) v[j][o] = bias[o];
    const bool idle = place.split * N >= padded(OUT);
    #pragma unroll 1
    for (int begin = 0; begin < UNITS; begin += CHUNK) {
        const int count = min(CHUNK, UNITS - begin);
        const float* weights = ready(place, AT + round_up(padded(OUT), 4) + begin * UNIT, count * UNIT);
        if (idle) continue;
        weights += place.split * N;
        #pragma unroll 1
        for (int unit = begin; unit < begin + count; unit++) {
            const float4* column = first + unit / K * plane + unit % K * D;
            if constexpr (C * K * K > EXACT_SUM) {
                float part[STRIP][N] = {};
                dense_column<K, D, INPUTS, N, padded(OUT)>(column, pitch, weights, part);
                #pragma unroll
                for (int j = 0; j < STRIP; j++)
                    #pragma unroll
                    for (int o = 0; o < N; o++) v[j][o] += part[j][o];
            } else {
                dense_column<K, D, INPUTS, N, padded(OUT)>(column, pitch, weights, v);
            }
            weights += UNIT;
        }
    }
}

// Each output has one input. Numbers: biases, then [column of taps][tap][output], outputs in fours.
template <int C, int K, int D, int AT>
DEVICE void depthwise(const Place& place, const float4* first, int pitch, int plane, float (&v)[STRIP][share(C)]) {
    constexpr int N = share(C), OUT = round_up(C, 4), REACH = STRIP + (K - 1) * D;
    const float* numbers = place.numbers + AT;
    #pragma unroll
    for (int o = 0; o < N; o += 4) {
        const int channel = place.split * N + o;
        float4 sum[STRIP];
        #pragma unroll
        for (int j = 0; j < STRIP; j++) sum[j] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (channel < C) {
            const float4 bias = load4(numbers + channel);
            #pragma unroll
            for (int j = 0; j < STRIP; j++) sum[j] = bias;
            #pragma unroll 1
            for (int q = 0; q < K; q++) {
                const float4* column = first + channel / 4 * plane + q * D;
                float4 x[REACH];
                #pragma unroll
                for (int r = 0; r < REACH; r++) x[r] = column[r * pitch];
                #pragma unroll
                for (int r = 0; r < K; r++) {
                    const float4 weight = load4(numbers + (1 + q * K + r) * OUT + channel);
                    #pragma unroll
                    for (int j = 0; j < STRIP; j++) {
                        sum[j].x = fmaf(x[r * D + j].x, weight.x, sum[j].x);
                        sum[j].y = fmaf(x[r * D + j].y, weight.y, sum[j].y);
                        sum[j].z = fmaf(x[r * D + j].z, weight.z, sum[j].z);
                        sum[j].w = fmaf(x[r * D + j].w, weight.w, sum[j].w);
                    }
                }
            }
        }
        #pragma unroll
        for (int j = 0; j < STRIP; j++)
            #pragma unroll
            for (int i = 0; i < 4 && o + i < N; i++) v[j][o + i] = part(sum[j], i);
    }
}

// Each output has EACH inputs. Numbers: biases, in fours, then [column of taps][tap][output][input].
template <int OUT, int EACH, int K, int D, int AT>
DEVICE void grouped(const Place& place, const float4* first, int pitch, int plane, float (&v)[STRIP][share(OUT)]) {
    constexpr int N = share(OUT), WEIGHTS = AT + round_up(OUT, 4), REACH = STRIP + (K - 1) * D;
    constexpr int TOGETHER = EACH % 4 == 0 ? 4 : 1;
    #pragma unroll
    for (int o = 0; o < N; o++) {
        const int channel = place.split * N + o;
        const bool there = channel < OUT;
        #pragma unroll
        for (int j = 0; j < STRIP; j++) v[j][o] = there ? place.numbers[AT + channel] : 0.0f;
        if (!there) continue;
        #pragma unroll 1
        for (int q = 0; q < K; q++) {
            const float* weights = place.numbers + WEIGHTS + (q * K * OUT + channel) * EACH;
            #pragma unroll 1
            for (int i = 0; i < EACH; i += TOGETHER) {
                const int input = channel * EACH + i;
                const float4* column = first + input / 4 * plane + q * D;
                float x[REACH][TOGETHER];
                #pragma unroll
                for (int r = 0; r < REACH; r++) {
                    float4 four;
                    if constexpr (TOGETHER == 4) four = column[r * pitch];
                    else four.x = reinterpret_cast<const float*>(column + r * pitch)[input % 4];
                    #pragma unroll
                    for (int n = 0; n < TOGETHER; n++) x[r][n] = part(four, n);
                }
                #pragma unroll
                for (int r = 0; r < K; r++) {
                    float4 weight;
                    if constexpr (TOGETHER == 4) weight = load4(weights + r * OUT * EACH + i);
                    else weight.x = weights[r * OUT * EACH + i];
                    #pragma unroll
                    for (int n = 0; n < TOGETHER; n++)
                        #pragma unroll
                        for (int j = 0; j < STRIP; j++) v[j][o] = fmaf(x[r * D + j][n], part(weight, n), v[j][o]);
                }
            }
        }
    }
}

// The largest of the 3×3 neighbours inside the image.
template <int C> DEVICE void maximum(const Place& place, const float4* first, float (&v)[STRIP][share(C)]) {
    constexpr int N = share(C);
    #pragma unroll
    for (int j = 0; j < STRIP; j++)
        #pragma unroll
        for (int o = 0; o < N; o++) v[j][o] = -INFINITY;
    #pragma unroll 1
    for (int q = 0; q < 3; q++) {
        const int column = place.left + place.column + q - 1;
        if (column < 0 || column >= place.w) continue;
        #pragma unroll
        for (int r = 0; r < STRIP + 2; r++) {
            const int row = place.top + place.row + r - 1;
            if (row < 0 || row >= place.h) continue;
            float x[N];
            get<C, N>(first, PLANE, r * COLUMNS + q, place.split * N, x);
            #pragma unroll
            for (int j = 0; j < STRIP; j++) {
                if (r < j || r > j + 2) continue;
                #pragma unroll
                for (int o = 0; o < N; o++) v[j][o] = fmaxf(v[j][o], x[o]);
            }
        }
    }
}
