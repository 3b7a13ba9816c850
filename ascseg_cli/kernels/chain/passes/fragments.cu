// A pass as in `passes.cu`, in bfloat16, that stays in the registers in which tensor cores leave a product: what happens
// over neighbours of a tile, or the image itself, then steps within a pixel, then at most a pooling. A warp does some
// lines of sixteen pixels by itself; after the tile is read, no thread waits for others.
#include "neighbours.cuh"

constexpr bool TILED = HALO > 0 || RESIZE_IN != resize::SAME;
constexpr bool NARROW = TILED && CODE[0] == over::DENSE && CHANNELS == 2;  // one output, for the other operand's channels
constexpr int SECOND = OTHERS ? OTHERS : 1, WIDEST = eighths(NARROW ? SECOND : widest<0, 0>());
constexpr int ACROSS = TILE_W / 16, WARPS = THREADS / 32;

// How many lines a warp does at once: as many as registers allow and leave work for every warp.
DEVICE constexpr int lines_at_once() {
    if (NARROW) return 8 / WIDEST;
    int m = TILED ? (WIDEST > 2 ? 4 : 8) : 8 / WIDEST;
    while (m > SHRUNK && (TILE_H % m || TILE_H * ACROSS / m < WARPS)) m /= 2;
    return m;
}
constexpr int M = lines_at_once(), LINES_OF_WARP = NARROW ? 8 : M, DOWN = TILE_H / LINES_OF_WARP;

// What a warp works at: its lines of the tile, what is combined with them, and the branch before's result.
struct Warp {
    const Input &x, &other;
    const Output& y;
    int slice, top, left;
    unsigned others[M][eighths(SECOND)][2];
    Lines<CARRY ? CARRY : 1, M> carry;

    template <int AT, int NUMBER> DEVICE void run(const Place& place) {
        constexpr int OVER = CODE[AT], K = CODE[AT + 1], D = CODE[AT + 2], C = CODE[AT + 3], STEPS = CODE[AT + 7];
        constexpr int OFF = HALO - D * (K - 1) / 2, CHANNEL = CODE[AT + 6];
        if constexpr (NARROW) {
            of_narrow<K, AT + HEADER, STEPS, CHANNEL>(place);
            return;
        }
        fetch_others(place);
        Lines<C, M> v;
        if constexpr (OVER == over::DENSE) convolved<CHANNELS, C, K, D, 0>(place, OFF, top, left, 0, v);
        else if constexpr (OVER == over::GROUPED) by_eighths<CHANNELS / C, C, K, D, M>(place, OFF, top, left, v);
        else if constexpr (OVER == over::MAXIMUM) largest<C, M>(place, top, left, v);
        else if constexpr (TILED) of_tile<C, M>(place, top, left, v);
        else of_image<X_WHOLE, X_PART, C, M>(x, place.top + top, place.left + left, v);
        go_on<AT + HEADER, STEPS, C, NUMBER, CHANNEL>(place, v);
    }

    // Eight lines of one number a pixel, then what follows for some of the lines at a time
    template <int K, int AT, int STEPS, int CHANNEL> DEVICE void of_narrow(const Place& place) {
        float sums[4];
        narrow<K>(place, top, left, sums);
        #pragma unroll
        for (int first = 0; first < LINES_OF_WARP; first += M, top += M) {
            Lines<1, M> v;
            fetch_others(place);
            #pragma unroll
            for (int m = 0; m < M; m++) shared_out(sums, first + m, v[m][0]);
            go_on<AT, STEPS, 1, 0, CHANNEL>(place, v);
        }
    }

    DEVICE void fetch_others(const Place& place) {
        if constexpr (OTHERS > 0) fetch<O_WHOLE, 0, SECOND, M>(other, place.top + top, place.left + left, others);
    }

    template <int AT, int LEFT, int C, int NUMBER, int CHANNEL> DEVICE void go_on(const Place& place, Lines<C, M>& v) {
        if constexpr (LEFT == 0) {
            finish<C, NUMBER>(CHANNEL + slice, v);
        } else {
            constexpr int KIND = CODE[AT], OUT = CODE[AT + 2], NUMBERS = CODE[AT + 3];
            if constexpr (KIND == kind::POINTWISE) {
                Lines<OUT, M> u;
                multiplied<C, OUT, NUMBERS, M>(place, v, u);
                go_on<AT + STEP, LEFT - 1, OUT, NUMBER, CHANNEL>(place, u);
            } else if constexpr (C == 1 && OUT > 1) {
                Lines<OUT, M> u;
                #pragma unroll
                for (int m = 0; m < M; m++)
                    #pragma unroll
                    for (int n = 0; n < eighths(OUT); n++)
                        #pragma unroll
                        for (int i = 0; i < 4; i++) u[m][n][i] = v[m][0][i];
                within<KIND, OUT>(u);
                go_on<AT + STEP, LEFT - 1, OUT, NUMBER, CHANNEL>(place, u);
            } else {
                if constexpr (KIND == kind::AFFINE) scaled_by<C, NUMBERS, M>(place, v);
                else if constexpr (KIND == kind::NORM) normalised<C, NUMBERS, M>(place, v);
                else within<KIND, C>(v);
                go_on<AT + STEP, LEFT - 1, C, NUMBER, CHANNEL>(place, v);
            }
        }
    }

    // A step that sees one number of a pixel at a time
    template <int KIND, int C> DEVICE void within(Lines<C, M>& v) {
        #pragma unroll
        for (int m = 0; m < M; m++)
            #pragma unroll
            for (int n = 0; n < eighths(C); n++)
                #pragma unroll
                for (int i = 0; i < 4; i++) {
                    float& one = v[m][n][i];
                    if constexpr (KIND < kind::ADD) one = activated<KIND>(one);
                    else if constexpr (CARRY) one += carry[m][n][i];
                    else one = combined<KIND>(one, (i % 2 ? high_of : low_of)(others[m][n][i / 2]));
                }
    }

    template <int C, int NUMBER> DEVICE void finish(int channel, Lines<C, M>& v) {
        if constexpr (CARRY && NUMBER < BRANCHES - 1) {
            #pragma unroll
            for (int m = 0; m < M; m++)
                #pragma unroll
                for (int n = 0; n < eighths(C); n++)
                    #pragma unroll
                    for (int i = 0; i < 4; i++) carry[m][n][i] = v[m][n][i];
        } else if constexpr (SHRUNK == 2) {
            write_halved<C, M>(y, channel, top, left, v);
        } else {
            write_lines<C, M>(y, channel, top, left, v);
        }
    }
};

// Arguments as those of `passes.cu`.
KERNEL __launch_bounds__(THREADS) fragments(
    const Number* x, int x_pitch, int hx, int wx, const Number* other, int other_pitch,
    Number* y, int y_pitch, const float* numbers, int h, int w, int across, int down
) {
    SHARED(float4, memory);
    Share mine = share_of_block(memory, x, x_pitch, hx, wx, y, y_pitch, numbers, h, w, across, down);
    if constexpr (NARROW) read_pairs(mine.place, mine.x);
    else if constexpr (TILED) read_tile(mine.place, mine.x);
    const size_t other_size = BOOSTS ? size_t(other_pitch) : size_t(h) * w * other_pitch;
    const Input second = {other + mine.image * other_size + mine.slice * SLICE_OUT, BOOSTS ? 0 : other_pitch, h, w, 0};
    __syncthreads();
    #pragma unroll 1
    for (int item = threadIdx.x / 32; item < DOWN * ACROSS; item += WARPS) {
        Warp warp = {mine.x, second, mine.y, mine.slice * SLICE_OUT, item % DOWN * LINES_OF_WARP, item / DOWN * 16};
        branches<0, 0>(mine.place, warp);
    }
}
