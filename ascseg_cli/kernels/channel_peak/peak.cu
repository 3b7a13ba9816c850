// The maximum of a channel, where it is first, and the sum; in parts of an image, then over them.
// HALF: images are bfloat16.
#include "device.cuh"

#if HALF
typedef unsigned short Number;
DEVICE float number(Number v) { return __uint_as_float(unsigned(v) << 16); }
DEVICE Number number_of(float v) {  // to nearest, ties to even
    const unsigned bits = __float_as_uint(v);
    return v != v ? 0x7fc0 : Number((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
#else
typedef float Number;
DEVICE float number(Number v) { return v; }
DEVICE Number number_of(float v) { return v; }
#endif

struct Peak { float most; int at; double sum; };

// The larger one, the earlier of two equal ones; NaN is larger than any number.
DEVICE Peak joined(Peak a, Peak b) {
    const bool a_nan = a.most != a.most, b_nan = b.most != b.most, equal = a.most == b.most || (a_nan && b_nan);
    const bool second = equal ? b.at < a.at : b_nan || (!a_nan && b.most > a.most);
    return {second ? b.most : a.most, second ? b.at : a.at, a.sum + b.sum};
}

// x (b, pixels, c); results (b, parts, c); grid (parts, b), threads a multiple of c
KERNEL peak_parts(const Number* __restrict__ x, int pixels, int c, float* most, int* at, double* sums) {
    SHARED(Peak, all);
    const int channel = threadIdx.x % c, slot = threadIdx.x / c, slots = blockDim.x / c;
    x += size_t(blockIdx.y) * pixels * c + channel;
    const int share = ceil_div(pixels, gridDim.x), begin = blockIdx.x * share, end = min(begin + share, pixels);
    Peak mine = {-INFINITY, 0x7fffffff, 0.0};
    for (int first = begin + slot; first < end; first += 32 * slots) {
        float sum = 0.0f;
#pragma unroll 8
        for (int i = 0; i < 32; i++) {
            const int p = first + i * slots;
            if (p >= end) break;
            const float v = number(x[size_t(p) * c]);
            sum += v;
            if (v > mine.most || (v != v && mine.most == mine.most) || mine.at == 0x7fffffff) mine.most = v, mine.at = p;
        }
        mine.sum += sum;
    }
    all[threadIdx.x] = mine;
    __syncthreads();
    if (slot > 0) return;
    for (int s = 1; s < slots; s++) mine = joined(mine, all[s * c + channel]);
    const size_t to = (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * c + channel;
    most[to] = mine.most, at[to] = mine.at, sums[to] = mine.sum;
}

// y, found (b, c); a warp for each
KERNEL peak_whole(
    const float* most, const int* at, const double* sums, int pixels, int c, int parts, Number* y, int* found
) {
    const int image = blockIdx.x / c, channel = blockIdx.x % c, lane = threadIdx.x;
    Peak mine = {-INFINITY, 0x7fffffff, 0.0};
    for (int part = lane; part < parts; part += 32) {
        const size_t from = (size_t(image) * parts + part) * c + channel;
        mine = joined(mine, {most[from], at[from], sums[from]});
    }
    for (int reach = 16; reach > 0; reach /= 2) {
        Peak other;
        other.most = __shfl_xor_sync(0xffffffffu, mine.most, reach);
        other.at = __shfl_xor_sync(0xffffffffu, mine.at, reach);
        other.sum = __shfl_xor_sync(0xffffffffu, mine.sum, reach);
        mine = joined(mine, other);
    }
    if (lane > 0) return;
    y[blockIdx.x] = number_of(mine.most + float(mine.sum / pixels));
    found[blockIdx.x] = mine.at;
}

// dx (b, pixels, c) from dy, found (b, c)
KERNEL peak_gradient(const float* dy, const int* found, int pixels, int c, float* __restrict__ dx) {
    dx += size_t(blockIdx.y) * pixels * c;
    dy += blockIdx.y * c, found += blockIdx.y * c;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < pixels * c; i += gridDim.x * blockDim.x) {
        const int channel = i % c;
        const float g = dy[channel];
        dx[i] = found[channel] == i / c ? g / pixels + g : g / pixels;
    }
}
