// Pixels shared out to warps: a warp takes PIXELS of them at once, LANES threads each; lanes may be left over.
#pragma once
#include "deform.cuh"

constexpr int PIXELS = 32 / LANES, WARPS = 4, THREADS = 32 * WARPS;
constexpr int PLACES = PIXELS * OFFSETS;  // floats of a warp

struct Lane { int warp, lane, slot, pixel, channel; bool active; };

// slot: the thread's place among a pixel's threads; pixel: its pixel among the warp's; channel: its first
DEVICE Lane lane_of() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pixel = lane / LANES, slot = lane % LANES;
    const int channel = blockIdx.y * SLICE + slot * VEC;
    return {warp, lane, slot, pixel, channel, pixel < PIXELS && channel < C};
}

// The offsets of the warp's pixels from `first` on, normalised, into its part of shared memory: (PIXELS, 18).
DEVICE void load_offsets(
    float* places, const float* offset, int pitch, const float4* norms, int first, int count, int lane
) {
    __syncwarp();
    for (int i = lane; i < PLACES; i += 32) {
        const int pixel = first + i / OFFSETS, channel = i % OFFSETS;
        places[i] = pixel < count ? offset_normed(offset[pixel * pitch + channel], norms, channel) : 0.0f;
    }
    __syncwarp();
}

DEVICE float2 offsets_of(const float* places, int pixel, int tap) {
    return *reinterpret_cast<const float2*>(places + pixel * OFFSETS + 2 * tap);
}
