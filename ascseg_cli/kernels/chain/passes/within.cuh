// The steps of a pass within a pixel, one after another, on what a thread has in registers.
#pragma once
#include "over.cuh"

// Where FAST, the hardware's own exponential and reciprocal stand in for exact ones.
DEVICE float gate_of(float x) {
    if constexpr (FAST) return __fdividef(1.0f, 1.0f + __expf(-x));
    return sigmoid(x);
}

// x · Φ(x) within 2e-7·|x| where FAST: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26
DEVICE float gelu_of(float x) {
    if constexpr (!FAST) return gelu(x);
    const float size = fabsf(x), t = __fdividef(1.0f, fmaf(0.23164189f, size, 1.0f));
    float sum = fmaf(0.530702715f, t, -0.726576014f);
    sum = fmaf(sum, t, 0.710706871f);
    sum = fmaf(sum, t, -0.142248368f);
    sum = fmaf(sum, t, 0.127414796f);
    return fmaxf(x, 0.0f) - size * (sum * t * __expf(-0.5f * x * x));
}

template <int C, int OUT, int AT>
DEVICE void pointwise(const Place& place, const float (&v)[STRIP][share(C)], float (&u)[STRIP][share(OUT)]) {
    if constexpr (SPLIT > 1 || !PRELOAD || C > 8) {
        put<C>(place, v);
        dense<C, OUT, 1, 1, AT>(place, place.exchange + place.pixel(), TILE_W, PIXELS, u);
    } else {  // the thread has all of a pixel
        constexpr int N = share(OUT);
        float weight[N];
        row_of<OUT>(place, place.numbers + AT, weight);
        #pragma unroll
        for (int j = 0; j < STRIP; j++)
            #pragma unroll
            for (int o = 0; o < N; o++) u[j][o] = weight[o];
        #pragma unroll
        for (int i = 0; i < C; i++) {
            row_of<OUT>(place, place.numbers + AT + round_up(padded(OUT), 4) + i * padded(OUT), weight);
            #pragma unroll
            for (int j = 0; j < STRIP; j++)
                #pragma unroll
                for (int o = 0; o < N; o++) u[j][o] = fmaf(v[j][i], weight[o], u[j][o]);
        }
    }
}

// Mean of a pixel's channels and what makes their variance 1.
template <int C> DEVICE float2 moments(const Place& place, const float (&v)[share(C)], int pixel, float eps) {
    float mean = 0.0f, variance = 0.0f;
    if constexpr (SPLIT == 1) {
        #pragma unroll
        for (int c = 0; c < C; c++) mean += v[c];
        mean /= C;
        #pragma unroll
        for (int c = 0; c < C; c++) variance = fmaf(v[c] - mean, v[c] - mean, variance);
    } else {  // the others' channels lie in the exchange
        const float* all = reinterpret_cast<const float*>(place.exchange + pixel);
        for (int c = 0; c < C; c++) mean += all[c / 4 * PIXELS * 4 + c % 4];
        mean /= C;
        for (int c = 0; c < C; c++) {
            const float d = all[c / 4 * PIXELS * 4 + c % 4] - mean;
            variance = fmaf(d, d, variance);
        }
    }
    return {mean, FAST ? rsqrtf(variance / C + eps) : 1.0f / sqrtf(variance / C + eps)};
}

// Numbers: eps and three unused, weights, biases.
template <int C, int AT> DEVICE void layer_norm(const Place& place, float (&v)[STRIP][share(C)]) {
    constexpr int N = share(C), ROW = round_up(padded(C), 4);
    if constexpr (SPLIT > 1) put<C>(place, v);
    float weight[N], bias[N];
    row_of<C>(place, place.numbers + AT + 4, weight);
    row_of<C>(place, place.numbers + AT + 4 + ROW, bias);
    #pragma unroll
    for (int j = 0; j < STRIP; j++) {
        const float2 m = moments<C>(place, v[j], place.pixel() + j * TILE_W, place.numbers[AT]);
        #pragma unroll
        for (int o = 0; o < N; o++) v[j][o] = fmaf((v[j][o] - m.x) * m.y, weight[o], bias[o]);
    }
}

template <int KIND> DEVICE float activated(float x) {
    if constexpr (KIND == kind::RELU) return fmaxf(x, 0.0f);
    if constexpr (KIND == kind::GELU) return gelu_of(x);
    return gate_of(x);
}

template <int KIND> DEVICE float combined(float x, float other) {
    if constexpr (KIND == kind::ADD) return x + other;
    if constexpr (KIND == kind::GATE) return fmaf(x, other, other);
    if constexpr (KIND == kind::SOFT_GATE) return fmaf(x, gate_of(other), other);
    return fmaf(other, x, x);
}

// With the other operand; a single channel is combined with each of the other's.
template <int KIND, int C, int OUT>
DEVICE void combine(const Place& place, const float (&v)[STRIP][share(C)], float (&u)[STRIP][share(OUT)]) {
    constexpr int N = share(OUT);
    constexpr bool SPREADS = C == 1 && OUT > 1;
    if constexpr (SPREADS && SPLIT > 1) put<C>(place, v);
    #pragma unroll
    for (int j = 0; j < STRIP; j++) {
        const int pixel = place.pixel() + j * TILE_W;
        float other[N], one = v[j][0];
        if constexpr (KIND == kind::BOOST) get<OUT, N>(place.others, 1, 0, place.split * N, other);
        else get<OUT, N>(place.others, PIXELS, pixel, place.split * N, other);
        if constexpr (SPREADS && SPLIT > 1) one = place.exchange[pixel].x;
        #pragma unroll
        for (int o = 0; o < N; o++) {
            if constexpr (SPREADS) u[j][o] = combined<KIND>(one, other[o]);
            else u[j][o] = combined<KIND>(v[j][o], other[o]);
        }
    }
}

// Numbers: factors, summands.
template <int C, int AT> DEVICE void affine(const Place& place, float (&v)[STRIP][share(C)]) {
    constexpr int N = share(C);
    float scale[N], shift[N];
    row_of<C>(place, place.numbers + AT, scale);
    row_of<C>(place, place.numbers + AT + round_up(padded(C), 4), shift);
    #pragma unroll
    for (int j = 0; j < STRIP; j++)
        #pragma unroll
        for (int o = 0; o < N; o++) v[j][o] = fmaf(v[j][o], scale[o], shift[o]);
}
