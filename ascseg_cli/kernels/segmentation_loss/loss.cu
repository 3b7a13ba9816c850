// The loss of one to four logit maps, each enlarged to the target's size while it is read.
// HEADS: how many maps. A map or an output that isn't there is null.
#include "device.cuh"

constexpr int SUMS = 1 + 3 * HEADS;  // of an image: t; then of each head cross-entropy, p·t, p
constexpr int THREADS = 256;

// Where a pixel lies between two of a smaller map, along one axis.
struct Between { int low, high; float part; };

DEVICE Between between(int at, int size, int enlarged) {
    const float ratio = enlarged > 1 ? float(size - 1) / float(enlarged - 1) : 0.0f, source = __fmul_rn(ratio, at);
    const int low = min(int(source), size - 1);
    return {low, min(low + 1, size - 1), source - low};
}

// One map (b, h / scale, w / scale)
struct Head { const float* z; int scale; };

DEVICE float enlarged(Head head, size_t image, int row, int column, int h, int w) {
    const int low_h = h / head.scale, low_w = w / head.scale;
    const float* const z = head.z + image * low_h * low_w;
    if (head.scale == 1) return z[row * w + column];
    const Between r = between(row, low_h, h), c = between(column, low_w, w);
    const float* const upper = z + r.low * low_w;
    const float* const lower = z + r.high * low_w;
    return (1.0f - r.part) * ((1.0f - c.part) * upper[c.low] + c.part * upper[c.high])
        + r.part * ((1.0f - c.part) * lower[c.low] + c.part * lower[c.high]);
}

// p = σ(z), q = 1 − p, and their logarithms, all with full precision
struct Probability { float p, q, log_p, log_q; };

DEVICE Probability probability(float z) {
    const float e = expf(-fabsf(z)), large = 1.0f / (1.0f + e), small = e * large, rest = log1pf(e);
    return {
        z >= 0.0f ? large : small, z >= 0.0f ? small : large, fminf(z, 0.0f) - rest, fminf(-z, 0.0f) - rest
    };
}

// partials (b, blocks, SUMS). Grid: blocks of an image · images; `steps` pixels a thread.
KERNEL loss_sums(
    const float* z1, const float* z2, const float* z3, const float* z4, int scale1, int scale2, int scale3,
    int scale4, const float* __restrict__ target, double* __restrict__ partials, int h, int w, int steps
) {
    SHARED(double, scratch);
    const Head heads[4] = {{z1, scale1}, {z2, scale2}, {z3, scale3}, {z4, scale4}};
    const size_t image = blockIdx.y;
    float sums[SUMS] = {};
    for (int step = 0; step < steps; step++) {
        const int pixel = (blockIdx.x * steps + step) * THREADS + threadIdx.x;
        if (pixel >= h * w) break;
        const float t = target[image * h * w + pixel];
        sums[0] += t;
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            const Probability at = probability(enlarged(heads[i], image, pixel / w, pixel % w, h, w));
            sums[3 * i + 1] -= t * fmaxf(at.log_p, -100.0f) + (1.0f - t) * fmaxf(at.log_q, -100.0f);
            sums[3 * i + 2] += at.p * t;
            sums[3 * i + 3] += at.p;
        }
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) {
        const double total = warp_sum(double(sums[i]));
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32 * SUMS + i] = total;
    }
    __syncthreads();
    if (threadIdx.x >= SUMS) return;
    double total = 0.0;
    for (int warp = 0; warp < THREADS / 32; warp++) total += scratch[warp * SUMS + threadIdx.x];
    partials[(image * gridDim.x + blockIdx.x) * SUMS + threadIdx.x] = total;
}

DEVICE double dice(const double* sums, int head) {
    return (2.0 * sums[3 * head + 2] + 1.0) / (sums[3 * head + 3] + sums[0] + 1.0);
}

// partials (b, blocks, SUMS) -> sums (b, SUMS), and the loss. One block.
KERNEL finish_loss(const double* partials, int b, int blocks, float pixels, double* sums, float* loss) {
    SHARED(double, scratch);
    for (int item = threadIdx.x / 32; item < b * SUMS; item += blockDim.x / 32) {
        const int image = item / SUMS, i = item % SUMS;
        double total = 0.0;
        for (int block = threadIdx.x % 32; block < blocks; block += 32)
            total += partials[(size_t(image) * blocks + block) * SUMS + i];
        total = warp_sum(total);
        if (threadIdx.x % 32 == 0) sums[item] = total;
    }
    __syncthreads();
    double total = 0.0;
    for (int item = threadIdx.x; item < b * HEADS; item += blockDim.x) {
        const double* const own = sums + item / HEADS * SUMS;
        const int head = item % HEADS;
        total += own[3 * head + 1] / pixels + 1.0 - dice(own, head);
    }
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) *loss = float(0.5 * total / b);
}

// The gradients of all enlarged maps, (b, h, w) each. Grid and `steps` as in `loss_sums`.
KERNEL loss_gradients(
    const float* z1, const float* z2, const float* z3, const float* z4, int scale1, int scale2, int scale3,
    int scale4, const float* __restrict__ target, const double* __restrict__ sums, const float* dloss,
    float* d1, float* d2, float* d3, float* d4, int h, int w, int steps
) {
    const Head heads[4] = {{z1, scale1}, {z2, scale2}, {z3, scale3}, {z4, scale4}};
    float* const gradients[4] = {d1, d2, d3, d4};
    const size_t image = blockIdx.y;
    const double* const own = sums + image * SUMS;
    const float half = 0.5f * *dloss / float(gridDim.y), share = half / (float(h) * float(w));
    float overlap[HEADS], total[HEADS];  // what p·t and p say to the loss
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
        const double under = own[3 * i + 3] + own[0] + 1.0;
        overlap[i] = float(-2.0 * half / under);
        total[i] = float(half * dice(own, i) / under);
    }
    for (int step = 0; step < steps; step++) {
        const int pixel = (blockIdx.x * steps + step) * THREADS + threadIdx.x;
        if (pixel >= h * w) break;
        const float t = target[image * h * w + pixel];
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            if (gradients[i] == nullptr) continue;
            const Probability at = probability(enlarged(heads[i], image, pixel / w, pixel % w, h, w));
            const float up = at.log_p >= -100.0f ? t * at.q : 0.0f;
            const float down = at.log_q >= -100.0f ? (1.0f - t) * at.p : 0.0f;
            const float slope = at.p * at.q;
            gradients[i][image * h * w + pixel] = share * (down - up) + (overlap[i] * t + total[i]) * slope;
        }
    }
}

// Numbers of an enlarged axis that reach number `at` of the small one: first and last.
DEVICE int2 reach(int at, int size, int enlarged) {
    if (size == 1) return make_int2(0, enlarged - 1);
    const int first = at == 0 ? 0 : (at - 1) * (enlarged - 1) / (size - 1) + 1;
    const int last = at == size - 1 ? enlarged - 1 : ((at + 1) * (enlarged - 1) - 1) / (size - 1);
    return make_int2(first, last);
}

DEVICE float share_of(int at, int small, int size, int enlarged) {
    const Between place = between(at, size, enlarged);
    return (place.low == small ? 1.0f - place.part : 0.0f) + (place.high == small ? place.part : 0.0f);
}

// The gradients of the maps from those of the enlarged ones. Grid: blocks of an image · maps · images; as many threads
// share a number of a map as leave each about ten pixels.
KERNEL gather_gradients(
    const float* d1, const float* d2, const float* d3, const float* d4, float* g1, float* g2, float* g3, float* g4,
    int scale1, int scale2, int scale3, int scale4, int h, int w
) {
    const int map = blockIdx.y, scale = map == 0 ? scale1 : map == 1 ? scale2 : map == 2 ? scale3 : scale4;
    const float* const gradient = map == 0 ? d1 : map == 1 ? d2 : map == 2 ? d3 : d4;
    float* const result = map == 0 ? g1 : map == 1 ? g2 : map == 2 ? g3 : g4;
    const int low_h = h / scale, low_w = w / scale;
    int lanes = 1;
    while (lanes < 32 && 4 * lanes <= scale * scale) lanes *= 2;
    const int number = (blockIdx.x * THREADS + threadIdx.x) / lanes, row = number / low_w, column = number % low_w;
    if (result == nullptr || blockIdx.x * THREADS / lanes >= low_h * low_w) return;
    float sum = 0.0f;
    if (row < low_h) {
        const float* const from = gradient + size_t(blockIdx.z) * h * w;
        const int2 rows = reach(row, low_h, h), columns = reach(column, low_w, w);
        const int across = columns.y - columns.x + 1, count = (rows.y - rows.x + 1) * across;
        for (int i = threadIdx.x % lanes; i < count; i += lanes) {
            const int y = rows.x + i / across, x = columns.x + i % across;
            sum = fmaf(share_of(y, row, low_h, h) * share_of(x, column, low_w, w), from[y * w + x], sum);
        }
    }
    for (int lane = lanes / 2; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    if (row < low_h && threadIdx.x % lanes == 0)
        result[size_t(blockIdx.z) * low_h * low_w + number] = sum;
}
