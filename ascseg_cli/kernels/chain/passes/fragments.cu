// A pass as in `passes.cu`, in bfloat16, that stays in the registers in which tensor cores leave a product: dense
// convolutions of a tile, or the image itself, then steps within a pixel, then at most a pooling. A warp does some
// lines of sixteen pixels by itself; after the tile is read, no thread waits for others.
#include "fragments.cuh"

constexpr bool TILED = CODE[0] != over::ALONE;
constexpr int ACROSS = TILE_W / 16, WARPS = THREADS / 32;

// How many lines a warp does at once: as many as registers allow and leave work for every warp.
DEVICE constexpr int lines_at_once(int n) {
    int m = TILED ? (n > 2 ? 4 : 8) : 8 / n;
    while (m > SHRUNK && (TILE_H % m || TILE_H * ACROSS / m < WARPS)) m /= 2;
    return m;
}

template <int M> struct Others { unsigned of[M][eighths(OTHERS ? OTHERS : 1)][2]; };

template <int AT, int LEFT, int C, int M>
DEVICE void onward(const Place& place, const Output& y, int channel, int top, int left, Others<M>& others, Lines<C, M>& v) {
    if constexpr (LEFT == 0 && SHRUNK == 2) {
        write_halved<C, M>(y, channel, top, left, v);
    } else if constexpr (LEFT == 0) {
        write_lines<C, M>(y, channel, top, left, v);
    } else {
        constexpr int KIND = CODE[AT], OUT = CODE[AT + 2], NUMBERS = CODE[AT + 3];
        if constexpr (KIND == kind::POINTWISE) {
            Lines<OUT, M> u;
            multiplied<C, OUT, NUMBERS, M>(place, v, u);
            onward<AT + STEP, LEFT - 1, OUT, M>(place, y, channel, top, left, others, u);
        } else {
            if constexpr (KIND == kind::AFFINE) scaled_by<C, NUMBERS, M>(place, v);
            else if constexpr (KIND == kind::NORM) normalised<C, NUMBERS, M>(place, v);
            else {
                #pragma unroll
                for (int m = 0; m < M; m++)
                    #pragma unroll
                    for (int n = 0; n < eighths(C); n++)
                        #pragma unroll
                        for (int i = 0; i < 4; i++) {
                            float& one = v[m][n][i];
                            if constexpr (KIND < kind::ADD) one = activated<KIND>(one);
                            else one = combined<KIND>(one, (i % 2 ? high_of : low_of)(others.of[m][n][i / 2]));
                        }
            }
            onward<AT + STEP, LEFT - 1, C, M>(place, y, channel, top, left, others, v);
        }
    }
}

// other: the image's first number, of all channels
template <int AT> DEVICE void branch(const Place& place, const Input& x, const Input& other, const Output& y, int slice) {
    constexpr int K = CODE[AT + 1], D = CODE[AT + 2], C = CODE[AT + 3], OFF = HALO - D * (K - 1) / 2;
    constexpr int STEPS = CODE[AT + 7], CHANNEL = CODE[AT + 6], M = lines_at_once(eighths(C)), DOWN = TILE_H / M;
    #pragma unroll 1
    for (int item = threadIdx.x / 32; item < DOWN * ACROSS; item += WARPS) {
        const int top = item % DOWN * M, left = item / DOWN * 16;
        Others<M> others;
        if constexpr (OTHERS > 0) fetch<O_WHOLE, 0, OTHERS, M>(other, place.top + top, place.left + left, others.of);
        Lines<C, M> v;
        if constexpr (TILED) {
            convolved<CHANNELS, C, K, D, 0>(place, OFF, top, left, 0, v);
        } else {
            unsigned pairs[M][eighths(C)][2];
            fetch<X_WHOLE, X_PART, C, M>(x, place.top + top, place.left + left, pairs);
            #pragma unroll
            for (int m = 0; m < M; m++)
                #pragma unroll
                for (int n = 0; n < eighths(C); n++)
                    #pragma unroll
                    for (int i = 0; i < 4; i++) v[m][n][i] = (i % 2 ? high_of : low_of)(pairs[m][n][i / 2]);
        }
        onward<AT + HEADER, STEPS, C, M>(place, y, CHANNEL + slice, top, left, others, v);
    }
}

struct Warps {
    const Input &x, &other;
    const Output& y;
    int slice;
    template <int AT, int NUMBER> DEVICE void run(const Place& place) { branch<AT>(place, x, other, y, slice); }
};

// Arguments as those of `passes.cu`.
KERNEL __launch_bounds__(THREADS) fragments(
    const Number* x, int x_pitch, int hx, int wx, const Number* other, int other_pitch,
    Number* y, int y_pitch, const float* numbers, int h, int w, int across, int down
) {
    SHARED(float4, memory);
    Share mine = share_of_block(memory, x, x_pitch, hx, wx, y, y_pitch, numbers, h, w, across, down);
    if constexpr (TILED) read_tile(mine.place, mine.x);
    const size_t other_size = BOOSTS ? size_t(other_pitch) : size_t(h) * w * other_pitch;
    const Input second = {other + mine.image * other_size + mine.slice * SLICE_OUT, BOOSTS ? 0 : other_pitch, h, w, 0};
    __syncthreads();
    Warps warps = {mine.x, second, mine.y, mine.slice * SLICE_OUT};
    branches<0, 0>(mine.place, warps);
}
