// One gate a channel: maximum and mean over an image, then two small dense layers with batch norms over the images.
//
// C channels · VEC loaded at once · LANES threads beside each other in a pixel · TRAINING: statistics of the batch
// HALF: x is bfloat16
#include "device.cuh"

constexpr int T = 256, SLOTS = T / LANES, CHANNELS = LANES * VEC;  // of a block: threads, pixels at a time, channels
constexpr int PARTS = T / CHANNELS < 8 ? T / CHANNELS : 8;
constexpr int UNSEEN = 0x7fffffff;
#define LOWEST __int_as_float(0xff800000)  // minus infinity

// The largest number so far and where it was: the first of equals; not a number is larger than all.
struct Largest { float value; int at; };

DEVICE Largest larger(Largest a, Largest b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool equal = a.value == b.value || (a_nan && b_nan);
    if (equal) return a.at < b.at ? a : b;
    return b_nan || (!a_nan && b.value > a.value) ? b : a;
}

// VEC channels of a pixel, loaded and stored at once
struct __align__(4 * VEC) Channels { float v[VEC]; };

#if HALF
typedef unsigned short Number;  // bfloat16
struct __align__(2 * VEC) Numbers { Number v[VEC]; };
DEVICE Channels channels_of(Numbers n) {
    Channels c;
#pragma unroll
    for (int i = 0; i < VEC; i++) c.v[i] = __uint_as_float(unsigned(n.v[i]) << 16);
    return c;
}
#else
typedef float Number;
typedef Channels Numbers;
DEVICE Channels channels_of(Numbers n) { return n; }
#endif

// Largest numbers, their places and the sums of a part of an image: (b, tiles, C) each.
// Grid: tiles of an image · images · groups of channels; `steps` pixels a thread, 32 at most.
KERNEL __launch_bounds__(T) pool(
    const Number* __restrict__ x, int pitch, float* __restrict__ best, int* __restrict__ places,
    double* __restrict__ sums, int pixels, int steps
) {
    SHARED(Largest, largest);
    float* const added = reinterpret_cast<float*>(largest + T * VEC);
    Largest* const partly = reinterpret_cast<Largest*>(added + T * VEC);
    double* const partly_added = reinterpret_cast<double*>(partly + PARTS * CHANNELS);
    const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES, first = blockIdx.z * CHANNELS;
    x += size_t(blockIdx.y) * pixels * pitch + min(first + lane * VEC, C - VEC);

    Largest own[VEC];
    float sum[VEC] = {};
#pragma unroll
    for (int i = 0; i < VEC; i++) own[i] = {LOWEST, UNSEEN};
#pragma unroll 4
    for (int step = 0; step < steps; step++) {
        // beyond the end the last pixel is seen again, which changes no maximum
        const int pixel = (blockIdx.x * steps + step) * SLOTS + slot, at = min(pixel, pixels - 1);
        const Channels channels = channels_of(*reinterpret_cast<const Numbers*>(x + at * pitch));
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            own[i] = larger(own[i], {channels.v[i], at});
            sum[i] += pixel < pixels ? channels.v[i] : 0.0f;
        }
    }
    if (slot < SLOTS)
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            largest[slot * CHANNELS + lane * VEC + i] = own[i];
            added[slot * CHANNELS + lane * VEC + i] = sum[i];
        }
    __syncthreads();

    const int channel = threadIdx.x % CHANNELS, part = threadIdx.x / CHANNELS;
    Largest found = {LOWEST, UNSEEN};
    double total = 0.0;
    if (part < PARTS) {
        for (int other = part; other < SLOTS; other += PARTS) {
            found = larger(found, largest[other * CHANNELS + channel]);
            total += added[other * CHANNELS + channel];
        }
        partly[part * CHANNELS + channel] = found;
        partly_added[part * CHANNELS + channel] = total;
    }
    __syncthreads();
    if (part != 0 || first + channel >= C) return;
    for (int other = 1; other < PARTS; other++) {
        found = larger(found, partly[other * CHANNELS + channel]);
        total += partly_added[other * CHANNELS + channel];
    }
    const size_t to = (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * C + first + channel;
    best[to] = found.value;
    places[to] = found.at;
    sums[to] = total;
}

// dx (b, pixels, C) = ds / pixels, and ds more where the maximum was. Grid as in `pool`.
KERNEL __launch_bounds__(T) spread(
    const float* __restrict__ ds, const int* __restrict__ places, float* __restrict__ dx, int pixels, int steps
) {
    const int slot = threadIdx.x / LANES, channel = blockIdx.z * CHANNELS + threadIdx.x % LANES * VEC;
    if (slot >= SLOTS || channel >= C) return;
    float whole[VEC], share[VEC];
    int at[VEC];
#pragma unroll
    for (int i = 0; i < VEC; i++) {
        whole[i] = ds[blockIdx.y * C + channel + i];
        share[i] = whole[i] / float(pixels);
        at[i] = places[blockIdx.y * C + channel + i];
    }
    dx += size_t(blockIdx.y) * pixels * C + channel;
    for (int step = 0; step < steps; step++) {
        const int pixel = (blockIdx.x * steps + step) * SLOTS + slot;
        if (pixel >= pixels) return;
        Channels channels;
#pragma unroll
        for (int i = 0; i < VEC; i++) channels.v[i] = pixel == at[i] ? share[i] + whole[i] : share[i];
        *reinterpret_cast<Channels*>(dx + pixel * C) = channels;
    }
}
