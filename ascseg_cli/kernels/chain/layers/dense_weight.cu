// The gradient of the dense convolution's weights (and bias): Σ over pixels of dz[pixel, co] · u[pixel + tap, ci].
// A block adds the tiles of its slab of the batch, for CI_GROUPS · CI_OWN input and CO_GROUPS · CO_OWN output channels;
// a thread owns a row of K taps for CI_OWN · CO_OWN pairs of channels, and every SPLITS-th row of a tile.
// Constants: CI, CO, K, DILATION, ACTIVATION, NORMED, BATCH as for the layer; BIASED: dbias is wanted;
// ROWS, WIDTH: the tile; CI_LINE, CO_LINE: numbers in a row of it, more than there are, against bank conflicts;
// CI_VEC, CO_VEC: channels loaded at once. A 1 × 1 kernel sees an image as one row, and a tile as a piece of it.
#include "dense.cuh"

constexpr int STEPS = K > 3 ? 2 : 4;  // pixels between two moves of the window
constexpr int THREADS = CI_GROUPS * CO_GROUPS * K * SPLITS;
constexpr int HALO = K / 2 * DILATION, TILE_ROWS = ROWS + 2 * HALO, TILE_COLUMNS = WIDTH + 2 * HALO;
constexpr int CI_BLOCK = CI_GROUPS * CI_OWN, CO_BLOCK = CO_GROUPS * CO_OWN;
constexpr int CI_BLOCKS = ceil_div(CI, CI_BLOCK);
constexpr int CI_ENTRIES = ceil_div(CI_BLOCKS * CI_BLOCK, 4) * 4;
constexpr int CO_ENTRIES = ceil_div(ceil_div(CO, CO_BLOCK) * CO_BLOCK, 4) * 4;
constexpr int TABLES = 3 * (CI_ENTRIES + CO_ENTRIES);
constexpr int WEIGHTS = CO * CI * K * K, OUTPUTS = CO_BLOCK * CI_BLOCK * K * K;
constexpr int PARTS = OUTPUTS * 2 > THREADS ? 1 : THREADS / OUTPUTS;  // threads that share the sum over SPLITS
static_assert(WIDTH % (STEPS * DILATION) == 0);

template <int N> DEVICE void load_few(float (&v)[N], const float* from) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int n = 0; n < N; n += 4) {
            const float4 t = load4(from + n);
            v[n] = t.x, v[n + 1] = t.y, v[n + 2] = t.z, v[n + 3] = t.w;
        }
    } else if constexpr (N == 2) {
        const float2 t = *reinterpret_cast<const float2*>(from);
        v[0] = t.x, v[1] = t.y;
    } else {
#pragma unroll
        for (int n = 0; n < N; n++) v[n] = from[n];
    }
}

// Adds one row of the tile, the columns of one remainder by DILATION: the window of inputs slides along it.
DEVICE void add_row(float (&sum)[K][CI_OWN][CO_OWN], const float* inputs, const float* gradients) {
    float u[K - 1 + STEPS][CI_OWN];
#pragma unroll
    for (int m = 0; m < K - 1; m++) load_few(u[m], inputs + m * DILATION * CI_BLOCK);
#pragma unroll 1
    for (int x = 0; x < WIDTH; x += STEPS * DILATION) {
#pragma unroll
        for (int m = K - 1; m < K - 1 + STEPS; m++) load_few(u[m], inputs + (x + m * DILATION) * CI_BLOCK);
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            float dz[CO_OWN];
            load_few(dz, gradients + (x + s * DILATION) * CO_BLOCK);
#pragma unroll
            for (int kx = 0; kx < K; kx++)
#pragma unroll
                for (int i = 0; i < CI_OWN; i++)
#pragma unroll
                    for (int o = 0; o < CO_OWN; o++) sum[kx][i][o] = fmaf(u[s + kx][i], dz[o], sum[kx][i][o]);
        }
#pragma unroll
        for (int m = 0; m < K - 1; m++)
#pragma unroll
            for (int i = 0; i < CI_OWN; i++) u[m][i] = u[m + STEPS][i];
    }
}

// The sum over the threads that share an accumulator, of output `e` of the block, every `PARTS`-th from `part`.
DEVICE double shared_sum(const float* scratch, int e, int part) {
    const int kx = e % K, ky = e / K % K, i = e / (K * K) % CI_BLOCK, o = e / (K * K * CI_BLOCK);
    const int owner = i / CI_OWN + CI_GROUPS * (o / CO_OWN + CO_GROUPS * ky);
    const int number = (kx * CI_OWN + i % CI_OWN) * CO_OWN + o % CO_OWN;
    double total = 0.0;
    for (int s = part; s < SPLITS; s += PARTS)
        total += scratch[number * THREADS + s * (CI_GROUPS * CO_GROUPS * K) + owner];
    return total;
}

// x (b, h, w, CI) with `pitch`; dy (b, h, w, CO) with `dy_pitch`; z (b, h, w, CO), out_statistics, dstatistics
// (2, CO) if BATCH; partials (slabs, WEIGHTS + (CO if BIASED)), weights as (CO, CI, K, K)
KERNEL __launch_bounds__(THREADS, resident(THREADS, 16)) dense_weight_gradient(
    const float* __restrict__ x, int pitch, const float* statistics, const float* norm_weight, const float* norm_bias,
    float eps, const float* __restrict__ dy, int dy_pitch, const float* __restrict__ z, const float* out_statistics,
    const float* dstatistics, float count, float* __restrict__ partials, int b, int h, int w
) {
    SHARED(float, base);
    float* ci_table = base;
    float* co_table = base + 3 * CI_ENTRIES;
    float* inputs = base + TABLES;
    float* gradients = inputs + TILE_ROWS * CI_LINE;
    const int ci0 = blockIdx.y % CI_BLOCKS * CI_BLOCK, co0 = blockIdx.y / CI_BLOCKS * CO_BLOCK;
    const int gi = threadIdx.x % CI_GROUPS, go = threadIdx.x / CI_GROUPS % CO_GROUPS;
    const int ky = threadIdx.x / (CI_GROUPS * CO_GROUPS) % K, split = threadIdx.x / (CI_GROUPS * CO_GROUPS * K);
    if constexpr (NORMED) norm_table(ci_table, CI_ENTRIES, statistics, norm_weight, norm_bias, eps, CI);
    if constexpr (BATCH) statistics_table(co_table, CO_ENTRIES, out_statistics, dstatistics, count, CO);

    constexpr int ACROSS = K == 1 ? ROWS * WIDTH : WIDTH, DOWN = K == 1 ? 1 : ROWS;  // the tile in the image
    const int across = ceil_div(w, ACROSS), tiles = across * ceil_div(h, DOWN);
    float sum[K][CI_OWN][CO_OWN] = {};
    double bias_sum = 0.0;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles * b; tile += gridDim.x) {
        const int place = tile % tiles, y0 = place / across * DOWN, x0 = place % across * ACROSS;
        const size_t image = size_t(tile / tiles) * h * w;
        __syncthreads();
        load_tile<CI_VEC, K == 1 ? 1 : TILE_ROWS, K == 1 ? ACROSS : TILE_COLUMNS, CI_BLOCK, THREADS>(
            Activated<ACTIVATION, NORMED>{x + image * pitch, pitch, nullptr, 0}, ci_table, CI_ENTRIES, ci0, CI,
            y0 - HALO, x0 - HALO, h, w, [&](unsigned row, unsigned column, unsigned c, const float (&v)[CI_VEC]) {
                const unsigned r = K == 1 ? column / WIDTH : row, q = K == 1 ? column % WIDTH : column;
                keep(inputs, r * CI_LINE + q * CI_BLOCK + c, v);
            });
        load_tile<CO_VEC, DOWN, ACROSS, CO_BLOCK, THREADS>(
            OutputGradient<BATCH>{dy + image * dy_pitch, dy_pitch, z + image * CO, CO}, co_table, CO_ENTRIES, co0, CO,
            y0, x0, h, w, [&](unsigned row, unsigned column, unsigned c, const float (&v)[CO_VEC]) {
                const unsigned r = K == 1 ? column / WIDTH : row, q = K == 1 ? column % WIDTH : column;
                keep(gradients, r * CO_LINE + q * CO_BLOCK + c, v);
            });
        __syncthreads();
        for (int row = split; row < ROWS; row += SPLITS)
            for (int s = 0; s < DILATION; s++)
                add_row(sum, inputs + (row + ky * DILATION) * CI_LINE + s * CI_BLOCK + gi * CI_OWN,
                        gradients + row * CO_LINE + s * CO_BLOCK + go * CO_OWN);
        if constexpr (BIASED) {
            constexpr int SHARES = THREADS / CO_BLOCK;
            float few = 0.0f;
            if (ci0 == 0 && threadIdx.x < SHARES * CO_BLOCK)
                for (int p = threadIdx.x / CO_BLOCK; p < ROWS * WIDTH; p += SHARES)
                    few += gradients[p / WIDTH * CO_LINE + p % WIDTH * CO_BLOCK + threadIdx.x % CO_BLOCK];
            bias_sum += few;
        }
    }
    __syncthreads();
    float* scratch = base;
    double* parts = reinterpret_cast<double*>(base + (K * CI_OWN * CO_OWN * THREADS + 1) / 2 * 2);
#pragma unroll
    for (int kx = 0; kx < K; kx++)
#pragma unroll
        for (int i = 0; i < CI_OWN; i++)
#pragma unroll
            for (int o = 0; o < CO_OWN; o++) scratch[((kx * CI_OWN + i) * CO_OWN + o) * THREADS + threadIdx.x] = sum[kx][i][o];
    __syncthreads();
    if constexpr (PARTS > 1) {
        if (threadIdx.x < PARTS * OUTPUTS)
            parts[threadIdx.x] = shared_sum(scratch, threadIdx.x % OUTPUTS, threadIdx.x / OUTPUTS);
        __syncthreads();
    }
    float* to = partials + size_t(blockIdx.x) * (WEIGHTS + (BIASED ? CO : 0));
    for (int e = threadIdx.x; e < OUTPUTS; e += THREADS) {
        double total = 0.0;
        if constexpr (PARTS > 1)
            for (int part = 0; part < PARTS; part++) total += parts[part * OUTPUTS + e];
        else
            total = shared_sum(scratch, e, 0);
        const int ci = ci0 + e / (K * K) % CI_BLOCK, co = co0 + e / (K * K * CI_BLOCK);
        if (ci < CI && co < CO) to[(co * CI + ci) * K * K + e % (K * K)] = float(total);
    }
    if constexpr (BIASED) {
        __syncthreads();
        double* sums = reinterpret_cast<double*>(base);
        sums[threadIdx.x] = bias_sum;
        __syncthreads();
        const int co = threadIdx.x;
        if (ci0 == 0 && co < CO_BLOCK && co0 + co < CO) {
            double total = 0.0;
            for (int s = 0; s < THREADS / CO_BLOCK; s++) total += sums[s * CO_BLOCK + co];
            to[WEIGHTS + co0 + co] = float(total);
        }
    }
}
