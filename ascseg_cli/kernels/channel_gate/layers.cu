// The two small dense layers of the channel gate, and their gradients: one block each. Numbers of images are (b, C).
// They are few, and norms over few images magnify rounding: so all is in double.
#include "device.cuh"

constexpr int STRIDE = STAGED ? C + 1 : C;  // of a row of weights; in shared memory rows begin in different banks

// Batch normalisation over the images. What it keeps: means, then 1 / √(variance + eps); (2, C).
struct Norm { const float* weight; const float* bias; float* mean; float* variance; long long* seen; float momentum, eps; };

DEVICE void statistics(const double* z, int b, Norm norm, double* kept) {
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        double mean = norm.mean[i], variance = norm.variance[i];
        if (TRAINING) {
            double sum = 0.0, squares = 0.0;
            for (int image = 0; image < b; image++) sum += z[image * C + i];
            mean = sum / b;
            for (int image = 0; image < b; image++) {
                const double apart = z[image * C + i] - mean;
                squares += apart * apart;
            }
            variance = squares / b;
            norm.mean[i] = float((1.0 - norm.momentum) * norm.mean[i] + norm.momentum * mean);
            norm.variance[i] = float((1.0 - norm.momentum) * norm.variance[i] + norm.momentum * squares / max(b - 1, 1));
            if (i == 0) *norm.seen += 1;
        }
        kept[i] = mean;
        kept[C + i] = rsqrt(variance + double(norm.eps));
    }
}

DEVICE double normalised(const double* z, int item, const double* kept, const float* weight, const float* bias) {
    const int i = item % C;
    return (z[item] - kept[i]) * kept[C + i] * weight[i] + bias[i];
}

DEVICE double normal_cdf(double x) { return 0.5 * (1.0 + erf(x * 0.70710678118654752)); }
DEVICE double gelu_slope_of(double x) { return normal_cdf(x) + x * 0.39894228040143268 * exp(-0.5 * x * x); }

DEVICE const float* staged(const float* weight, float* room) {
    if (!STAGED) return weight;
    for (int i = threadIdx.x; i < C * C; i += blockDim.x) room[i / C * STRIDE + i % C] = weight[i];
    return room;
}

DEVICE void dense(const float* weight, const float* bias, const double* from, double* to, int items) {
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
        const int row = item % C;
        const double* const image = from + item / C * C;
        double sum = bias ? bias[row] : 0.0;
        for (int i = 0; i < C; i++) sum += weight[row * STRIDE + i] * image[i];
        to[item] = sum;
    }
}

#define LOWEST __int_as_float(0xff800000)  // minus infinity

// Maximum and mean of every image's channel from those of its parts: s (b, C), places (b, C).
DEVICE void gather(
    const float* best, const int* part_places, const double* sums, int tiles, float pixels, int items, double* s,
    int* places
) {
    int lanes = 1;
    while (lanes < 32 && 2 * lanes * items <= int(blockDim.x)) lanes *= 2;
    const int lane = threadIdx.x % lanes, together = blockDim.x / lanes;
    for (int start = 0; start < items; start += together) {
        const int item = start + threadIdx.x / lanes;
        float value = LOWEST;
        int at = 0x7fffffff;
        double sum = 0.0;
        // of equal maxima the first: parts come in the order of pixels, so one must be larger to win
        const auto compare = [&](float other, int place) {
            const bool equal = other == value || (other != other && value != value);
            const bool wins = equal ? place < at : other != other || other > value;
            if (!wins) return;
            value = other;
            at = place;
        };
        if (item < items)
            for (int tile = lane; tile < tiles; tile += lanes) {
                const size_t from = (size_t(item / C) * tiles + tile) * C + item % C;
                compare(best[from], part_places[from]);
                sum += sums[from];
            }
        for (int other = lanes / 2; other > 0; other /= 2) {
            const float others = __shfl_xor_sync(0xffffffffu, value, other);
            const int place = __shfl_xor_sync(0xffffffffu, at, other);
            compare(others, place);
            sum += __shfl_xor_sync(0xffffffffu, sum, other);
        }
        if (item < items && lane == 0) {
            s[item] = value + sum / pixels;
            places[item] = at;
        }
    }
}

// kept (4, b, C): s, first layer, its activation, second layer; norms (4, C): what both keep
KERNEL gate(
    const float* best, const int* part_places, const double* sums, int tiles, float pixels, int b,
    const float* weight1, const float* bias1, const float* gamma1, const float* beta1, float* mean1,
    float* variance1, long long* seen1, float momentum1, float eps1,
    const float* weight2, const float* bias2, const float* gamma2, const float* beta2, float* mean2,
    float* variance2, long long* seen2, float momentum2, float eps2,
    double* kept, double* norms, int* places, float* result
) {
    SHARED(float, room);
    const int items = b * C;
    double *const s = kept, *const z1 = s + items, *const activated = z1 + items, *const z2 = activated + items;
    const Norm norm1 = {gamma1, beta1, mean1, variance1, seen1, momentum1, eps1};
    const Norm norm2 = {gamma2, beta2, mean2, variance2, seen2, momentum2, eps2};
    const float* const first = staged(weight1, room);
    const float* const second = staged(weight2, room + C * STRIDE);
    gather(best, part_places, sums, tiles, pixels, items, s, places);
    __syncthreads();
    dense(first, bias1, s, z1, items);
    __syncthreads();
    statistics(z1, b, norm1, norms);
    __syncthreads();
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
        const double u = normalised(z1, item, norms, gamma1, beta1);
        activated[item] = u * normal_cdf(u);
    }
    __syncthreads();
    dense(second, bias2, activated, z2, items);
    __syncthreads();
    statistics(z2, b, norm2, norms + 2 * C);
    __syncthreads();
    for (int item = threadIdx.x; item < items; item += blockDim.x)
        result[item] = float(1.0 / (1.0 + exp(-normalised(z2, item, norms + 2 * C, gamma2, beta2))));
}

// g, the gradient of a norm's result -> that of its input, in its place; and those of weight, bias, and the bias before
DEVICE void norm_gradient(
    double* g, const double* z, int b, const double* kept, const float* gamma, float* dgamma, float* dbeta, float* dbias
) {
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        const double mean = kept[i], inverse = kept[C + i], scale = gamma[i] * inverse;
        double sum = 0.0, product = 0.0;
        for (int image = 0; image < b; image++) {
            sum += g[image * C + i];
            product += g[image * C + i] * (z[image * C + i] - mean) * inverse;
        }
        for (int image = 0; image < b; image++) {
            const double x = (z[image * C + i] - mean) * inverse;
            g[image * C + i] = scale * (g[image * C + i] - (TRAINING ? (sum + x * product) / b : 0.0));
        }
        dgamma[i] = float(product);
        dbeta[i] = float(sum);
        dbias[i] = TRAINING ? 0.0f : float(scale * sum);  // zero but for rounding
    }
}

// The gradient of a dense layer's weights from that of its result.
DEVICE void weight_gradient(const double* dz, const double* input, int b, float* dweight) {
    for (int i = threadIdx.x; i < C * C; i += blockDim.x) {
        double sum = 0.0;
        for (int image = 0; image < b; image++) sum += dz[image * C + i / C] * input[image * C + i % C];
        dweight[i] = float(sum);
    }
}

// The gradient of one number of a dense layer's input.
DEVICE double input_gradient(const float* weight, const double* dz, int item) {
    const double* const image = dz + item / C * C;
    double sum = 0.0;
    for (int row = 0; row < C; row++) sum += weight[row * C + item % C] * image[row];
    return sum;
}

// dz (2, b, C): room; dweight, dvectors (2, …): of both layers; dvectors: norm's weight, its bias, bias; (2, 3, C)
KERNEL gate_gradient(
    const float* dgate, const double* kept, const double* norms, int b,
    const float* weight1, const float* gamma1, const float* beta1, const float* weight2, const float* gamma2,
    const float* beta2, double* dz, float* ds, float* dweight, float* dvectors
) {
    const int items = b * C;
    const double *const s = kept, *const z1 = s + items, *const activated = z1 + items, *const z2 = activated + items;
    double *const g1 = dz, *const g2 = dz + items;
    float* const vectors2 = dvectors + 3 * C;
    for (int item = threadIdx.x; item < items; item += blockDim.x) {
        const double e = exp(-fabs(normalised(z2, item, norms + 2 * C, gamma2, beta2)));
        g2[item] = dgate[item] * e / ((1.0 + e) * (1.0 + e));
    }
    __syncthreads();
    norm_gradient(g2, z2, b, norms + 2 * C, gamma2, vectors2, vectors2 + C, vectors2 + 2 * C);
    __syncthreads();
    weight_gradient(g2, activated, b, dweight + C * C);
    for (int item = threadIdx.x; item < items; item += blockDim.x)
        g1[item] = input_gradient(weight2, g2, item) * gelu_slope_of(normalised(z1, item, norms, gamma1, beta1));
    __syncthreads();
    norm_gradient(g1, z1, b, norms, gamma1, dvectors, dvectors + C, dvectors + 2 * C);
    __syncthreads();
    weight_gradient(g1, s, b, dweight);
    for (int item = threadIdx.x; item < items; item += blockDim.x) ds[item] = float(input_gradient(weight1, g1, item));
}
