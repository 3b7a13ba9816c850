// A dense k × k convolution of one tile of an image, by one block of threads, from IN to OUT channels; the gradient
// of the input is one too, with the weights transposed. Constants:
//   IN, OUT, K, DILATION  the convolution
//   ACROSS, ROWS          ACROSS · ROWS threads share the tile's pixels; a thread owns PX of a row, DILATION apart
//   OWN, GROUPS           output channels of a thread; groups of them in a block
//   SPLITS                threads that share a pixel's input channels and rows of the kernel
//   CHUNK                 input channels in shared memory at a time; a multiple of four, or all if fewer
//   VEC, OUT_VEC          input channels loaded at once; output channels stored at once
//   STEP, LINE, PLANE     the tile in shared memory, in float4: see `place`
#pragma once
#include "dense.cuh"

constexpr int PIXEL_THREADS = ACROSS * ROWS, WORKERS = PIXEL_THREADS * GROUPS, THREADS = WORKERS * SPLITS;
constexpr int HALO = K / 2 * DILATION, WIDTH = PX * ACROSS;
constexpr int TILE_ROWS = ROWS + 2 * HALO, TILE_COLUMNS = WIDTH + 2 * HALO;
constexpr int LANES = IN < 4 ? IN : 4, QUADS = ceil_div(CHUNK, 4), CHUNKS = ceil_div(IN, CHUNK);
constexpr int ENTRIES = ceil_div(CHUNKS * CHUNK, 4) * 4;
constexpr int ROOM = ceil_div(OWN, 4) * 4, BLOCK_ROOM = ROOM * GROUPS, BLOCK_OUT = OWN * GROUPS;
constexpr int SUMS = OWN <= 1 ? 2 : OWN <= 2 ? 4 : OWN <= 4 ? 8 : 16;  // 2 · OWN, up to a power of two
static_assert(OWN <= 8 && PIXEL_THREADS % 32 == 0 && ACROSS % DILATION == 0);

// Shared memory, in this order: the table, the tile, the weights; the last two are reused when sums are made.
struct Memory {
    float* table;
    float4* tile;
    float* weights;
    DEVICE explicit Memory(float* base)
        : table(base), tile(reinterpret_cast<float4*>(base + 3 * ENTRIES)),
          weights(base + 3 * ENTRIES + 4 * QUADS * PLANE) {}
};

// Where four channels of a pixel lie. Columns that a thread's neighbours read at the same time lie side by side,
// and 8 threads in a row always read 8 different banks.
DEVICE unsigned place(unsigned quad, unsigned row, unsigned column) {
    const unsigned q = column / DILATION;
    return quad * PLANE + row * LINE + q % PX * STEP + q / PX * DILATION + column % DILATION;
}

// Which pixels and channels are this thread's.
struct Place {
    int image, y, x, t, row, group, split, channel;  // x: the first of PX columns; channel: the first of OWN
    int y0, x0;                                      // the tile's corner
    DEVICE Place(int h, int w) {
        const int across = ceil_div(w, WIDTH), tiles = across * ceil_div(h, ROWS);
        const int tile = blockIdx.x % tiles;
        const unsigned worker = threadIdx.x % WORKERS;
        image = blockIdx.x / tiles;
        y0 = tile / across * ROWS, x0 = tile % across * WIDTH;
        t = worker % ACROSS, row = worker / ACROSS % ROWS, group = worker / PIXEL_THREADS, split = threadIdx.x / WORKERS;
        y = y0 + row, x = x0 + int(worker % ACROSS / DILATION * (DILATION * PX) + worker % ACROSS % DILATION);
        channel = (blockIdx.y * GROUPS + group) * OWN;
    }
};

DEVICE float lane_of(float4 v, int n) { return n == 0 ? v.x : n == 1 ? v.y : n == 2 ? v.z : v.w; }

// Weights of input channels from `first`, all taps, as (channel, tap, output channel of the block).
template <bool TRANSPOSED> DEVICE void load_weights(float* to, const float* weight, int first) {
    constexpr int TAPS = K * K, COUNT = (LANES < 4 ? LANES : CHUNK) * TAPS * BLOCK_ROOM;
#pragma unroll 4
    for (unsigned e = threadIdx.x; e < COUNT; e += THREADS) {
        const int slot = e % BLOCK_ROOM, tap = e / BLOCK_ROOM % TAPS, in = first + int(e / BLOCK_ROOM / TAPS);
        const int out = (blockIdx.y * GROUPS + slot / ROOM) * OWN + slot % ROOM;
        const int from = TRANSPOSED ? (in * OUT + out) * TAPS + (TAPS - 1 - tap) : (out * IN + in) * TAPS + tap;
        to[e] = slot % ROOM < OWN && out < OUT && in < IN ? weight[from] : 0.0f;
    }
}

constexpr int EXACT_SUM = 256;  // products that may be added one by one; more are summed by parts, lest errors add up

// Adds the chunk in shared memory. A thread reads K + PX − 1 pixels for K taps of PX pixels.
DEVICE void add_chunk(float (&sum)[PX][OWN], const Memory& memory, const Place& me) {
#pragma unroll 1
    for (int item = me.split; item < QUADS * K; item += SPLITS) {
        const int quad = item / K, ky = item % K;
        const float4* line = memory.tile + quad * PLANE + (me.row + ky * DILATION) * LINE + me.t;
        const float* weights = memory.weights + (quad * 4 * K + ky) * K * BLOCK_ROOM + me.group * ROOM;
        float4 x[PX + K - 1];
#pragma unroll
        for (int m = 0; m < PX + K - 1; m++) x[m] = line[m % PX * STEP + m / PX * DILATION];
        float part[PX][OWN];
#pragma unroll
        for (int i = 0; i < PX * OWN; i++) part[i / OWN][i % OWN] = IN * K * K > EXACT_SUM ? 0.0f : sum[i / OWN][i % OWN];
#pragma unroll
        for (int kx = 0; kx < K; kx++)
#pragma unroll
            for (int n = 0; n < LANES; n++) {
                float own[ROOM];
#pragma unroll
                for (int o = 0; o < ROOM; o += 4) {
                    const float4 v = load4(weights + (n * K * K + kx) * BLOCK_ROOM + o);
                    own[o] = v.x, own[o + 1] = v.y, own[o + 2] = v.z, own[o + 3] = v.w;
                }
#pragma unroll
                for (int p = 0; p < PX; p++)
#pragma unroll
                    for (int o = 0; o < OWN; o++) part[p][o] = fmaf(lane_of(x[kx + p], n), own[o], part[p][o]);
            }
#pragma unroll
        for (int i = 0; i < PX * OWN; i++) {
            float& all = sum[i / OWN][i % OWN];
            all = IN * K * K > EXACT_SUM ? all + part[i / OWN][i % OWN] : part[i / OWN][i % OWN];
        }
    }
}

// The convolution: afterwards threads of split 0 hold the result in `sum`; shared memory is free behind a barrier.
template <bool TRANSPOSED, class Source>
DEVICE void convolve(
    float (&sum)[PX][OWN], const Source& source, const float* weight, const Memory& memory, const Place& me, int h, int w
) {
#pragma unroll
    for (int p = 0; p < PX; p++)
#pragma unroll
        for (int o = 0; o < OWN; o++) sum[p][o] = 0.0f;
#pragma unroll 1
    for (int first = 0; first < IN; first += CHUNK) {
        __syncthreads();
        const auto put = [&](unsigned row, unsigned column, unsigned c, const float (&v)[VEC]) {
            keep(reinterpret_cast<float*>(memory.tile), 4 * place(c / 4, row, column) + c % 4, v);
        };
        load_tile<VEC, TILE_ROWS, TILE_COLUMNS, CHUNK, THREADS>(
            source, memory.table, ENTRIES, first, IN, me.y0 - HALO, me.x0 - HALO, h, w, put);
        load_weights<TRANSPOSED>(memory.weights, weight, first);
        __syncthreads();
        add_chunk(sum, memory, me);
    }
    __syncthreads();
    if constexpr (SPLITS > 1) {
        float* scratch = reinterpret_cast<float*>(memory.tile) + threadIdx.x % WORKERS;
        if (me.split > 0)
#pragma unroll
            for (int n = 0; n < PX * OWN; n++)
                scratch[((me.split - 1) * PX * OWN + n) * WORKERS] = sum[n / OWN][n % OWN];
        __syncthreads();
        if (me.split == 0)
            for (int s = 0; s < SPLITS - 1; s++)
#pragma unroll
                for (int n = 0; n < PX * OWN; n++) sum[n / OWN][n % OWN] += scratch[(s * PX * OWN + n) * WORKERS];
        __syncthreads();
    }
}

// A pixel's channels from or to memory, those that exist.
DEVICE void load_own(float (&v)[OWN], const float* from, int channel, int vec) {
#pragma unroll
    for (int o = 0; o < OWN; o += 4)
        if (vec == 4 && OWN % 4 == 0) {
            if (channel + o < OUT) {
                const float4 t = load4(from + o);
                v[o] = t.x, v[(o + 1) % OWN] = t.y, v[(o + 2) % OWN] = t.z, v[(o + 3) % OWN] = t.w;
            }
        } else {
#pragma unroll
            for (int n = o; n < OWN && n < o + 4; n++) v[n] = channel + n < OUT ? from[n] : 0.0f;
        }
}

template <int V> DEVICE void copy(float* to, const float* from) {
    if constexpr (V == 4) store4(to, load4(from));
    else if constexpr (V == 2) *reinterpret_cast<float2*>(to) = *reinterpret_cast<const float2*>(from);
    else *to = *from;
}

// Where number n of a tile (ROWS, WIDTH, BLOCK_OUT) waits; neighbouring threads write to different banks.
DEVICE unsigned waiting(unsigned n) { return n + n / (PX * BLOCK_OUT) * 4; }

// The results of the threads of split 0 to an image (h, w, OUT). Every thread must come here. By way of shared memory
// a warp writes whole lines. From threads that own several pixels it wrote half sectors: 4 to 8 channels of 8 · 512² px
// took an H100 196 µs instead of 83.
DEVICE void store_tile(const float (&v)[PX][OWN], float* to, const Memory& memory, const Place& me, int h, int w) {
    float* const tile = reinterpret_cast<float*>(memory.tile);
    __syncthreads();
    if (me.split == 0)
#pragma unroll
        for (int p = 0; p < PX; p++)
#pragma unroll
            for (int o = 0; o < OWN; o += OUT_VEC) {
                const unsigned pixel = me.row * WIDTH + (me.x - me.x0) + p * DILATION;
                float* const at = tile + waiting(pixel * BLOCK_OUT + me.group * OWN + o);
                if constexpr (OUT_VEC == 4) store4(at, make_float4(v[p][o], v[p][o + 1], v[p][o + 2], v[p][o + 3]));
                else if constexpr (OUT_VEC == 2) *reinterpret_cast<float2*>(at) = make_float2(v[p][o], v[p][o + 1]);
                else *at = v[p][o];
            }
    __syncthreads();
    constexpr unsigned V = BLOCK_OUT % 4 == 0 && OUT % 4 == 0 ? 4 : BLOCK_OUT % 2 == 0 && OUT % 2 == 0 ? 2 : 1;
    for (unsigned n = threadIdx.x * V; n < ROWS * WIDTH * BLOCK_OUT; n += THREADS * V) {
        const unsigned pixel = n / BLOCK_OUT;
        const int y = me.y0 + int(pixel / WIDTH), x = me.x0 + int(pixel % WIDTH);
        const int channel = blockIdx.y * BLOCK_OUT + n % BLOCK_OUT;
        if (y < h && x < w && channel < OUT) copy<V>(to + (y * w + x) * OUT + channel, tile + waiting(n));
    }
}

// Two sums a channel of this thread, over the block, to partials (blocks, 2, OUT). Every thread must come here.
// sums  the first sum of channel o in [o], the second in [SUMS / 2 + o]; threads of split 0
DEVICE void store_sums(double (&sums)[SUMS], double* partials, const Memory& memory, const Place& me) {
    constexpr int WARPS = PIXEL_THREADS / 32;
    double* scratch = reinterpret_cast<double*>(memory.tile);
    if (me.split == 0) {
        const double total = warp_sums(sums);
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        if (lane % (32 / SUMS) == 0) scratch[warp * SUMS + lane / (32 / SUMS)] = total;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < GROUPS * SUMS; e += THREADS) {
        const int group = e / SUMS, n = e % SUMS, o = n % (SUMS / 2);
        const int channel = (blockIdx.y * GROUPS + group) * OWN + o;
        double total = 0.0;
        for (int warp = 0; warp < WARPS; warp++) total += scratch[(group * WARPS + warp) * SUMS + n];
        if (o < OWN && channel < OUT) partials[(size_t(blockIdx.x) * 2 + n / (SUMS / 2)) * OUT + channel] = total;
    }
}
