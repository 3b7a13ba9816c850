// The depthwise deformable convolution. A warp keeps the offsets of its pixels in shared memory; a thread gathers
// four channels of one pixel. The grid is (pixels, slices of channels, images).
#include "warp_pixels.cuh"

// x (b, h, w, x_pitch), offset (b, h, w, offset_pitch), weight (C, 9) -> y (b, h, w, C)
KERNEL __launch_bounds__(THREADS) deform(
    const float* x, int x_pitch, const float* offset, int offset_pitch, const float* weight,
    const float* statistics, const float* gamma, const float* beta, float eps, float* y, int h, int w
) {
    SHARED(float, shared);
    float4* const norms = reinterpret_cast<float4*>(shared);
    float* const taps = shared + 4 * OFFSETS;
    const Lane at = lane_of();
    float* const places = taps + TAP_FLOATS + at.warp * PLACES;
    load_taps(taps, weight, blockIdx.y * SLICE);
    load_norms(norms, statistics, gamma, beta, eps);
    __syncthreads();

    const int count = h * w, first = (blockIdx.x * WARPS + at.warp) * PIXELS, pixel = first + at.pixel;
    const size_t image = size_t(blockIdx.z) * count;
    load_offsets(places, offset + image * offset_pitch, offset_pitch, norms, first, count, at.lane);
    if (!at.active || pixel >= count) return;
    x += image * x_pitch + at.channel;
    const int row = pixel / w, column = pixel - row * w;
    Numbers total = zeros();
#pragma unroll 3
    for (int tap = 0; tap < TAPS; tap++) {
        const float2 moved = offsets_of(places, at.pixel, tap);
        const Sample s = sample_of(tap, row, column, moved.x, moved.y, h, w);
        const Corners k = corners_of(s, x, x_pitch, w, true);
        const Numbers weights = load(taps + tap * SLICE + at.slot * VEC);
        const float up = 1.0f - s.down, left = 1.0f - s.right;
        const float a = up * left, b = up * s.right, c = s.down * left, d = s.down * s.right;
        for (int j = 0; j < VEC; j++) {
            const float upper = fmaf(k.b.at[j], b, k.a.at[j] * a);
            const float value = fmaf(k.d.at[j], d, fmaf(k.c.at[j], c, upper));
            total.at[j] = fmaf(weights.at[j], value, total.at[j]);
        }
    }
    store(y + (image + pixel) * C + at.channel, total);
}
