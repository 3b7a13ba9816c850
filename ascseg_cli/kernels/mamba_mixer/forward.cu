// Mamba's mixer forward, parallel over chunks of tokens: `chunk_ends` scans every chunk from zero states, `link_chunks`
// carries the states from chunk to chunk, `replay` scans again from the right states and writes the result.
// Nothing but tokens, states between chunks and ΣΔ of each chunk is ever in device memory.
#include "mixer.cuh"

// States at the end of each chunk if they were zero before it, and ΣΔ.
// ends (b, blocks of groups, chunks, CH · N), totals (b, blocks of groups, chunks, CH); grid (b · chunks, blocks of groups)
KERNEL __launch_bounds__(THREADS, RESIDENT) chunk_ends(
    const Token* t, int t_b, int t_l, int t_c, GIVEN_WEIGHTS, float* ends, float* totals, int l, int length, int chunks
) {
    SHARED(float, w);
    float *x = w + WEIGHTS, *delta = x + ROWS * XP, *p = delta + ROWS * XP, *tokens = p + ROWS * PP;
    const int image = blockIdx.x / chunks, chunk = blockIdx.x % chunks, first = chunk * length;
    const int lane = threadIdx.x, ch = lane / Q, g = ch / E, c = ch % E;
    t += (long long)(image) * t_b + (long long)(blockIdx.y) * (GB * DIM) * t_c;
    fetch_weights(w, GIVEN);
    fetch_tokens(tokens, t, t_l, t_c, first - BACK, length + BACK, l);
    Rate rates[S];
    float state[S], later = 0.0f;  // ΣΔ of the tokens after
    begin(A_log, rates, state);
    __syncthreads();
    for (int start = (min(length, l - first) - 1) / TILE * TILE; start >= 0; start -= TILE) {
        convolve(w, tokens + start * GB * DP, x);
        __syncthreads();
        steps<false>(w, x, delta, p, l - first - start);
        states<0, N / 4>(w, x, p);
        __syncthreads();
        // From the last token to the first: each adds exp(A · ΣΔ of those after it) · Δ B x, so no error repeats.
        if (lane < LANES)
#pragma unroll 4
            for (int k = TILE - 1; k >= 0; k--) {
                const int row = k * GB + g;
                const float step = delta[row * XP + c], drive = step * x[row * XP + c];
                float b[S];
                load_states(p + row * PP + lane % Q * S, b);
#pragma unroll
                for (int s = 0; s < S; s++) state[s] = fmaf(exp2_fast(later * rates[s].high), drive * b[s], state[s]);
                later += step;
            }
        __syncthreads();
    }
    if (lane >= LANES) return;
    const size_t at = (size_t(image) * gridDim.y + blockIdx.y) * chunks + chunk;
    store_states(ends + at * (CH * N) + lane * S, state);
    if (lane % Q == 0) totals[at * CH + ch] = later;
}

// In place, what each chunk adds -> what comes to it: zero for the first, exp(A · ΣΔ) · before + added for the next.
// backward: from the last chunk to the first. grid (columns / 16, b · blocks of groups), 16 columns × at most 32 threads
KERNEL __launch_bounds__(512) link_chunks(const float* A_log, float* ends, const float* totals, int chunks, int backward) {
    constexpr int COLUMNS = 16;
    SHARED(float, room);
    const int parts = blockDim.x / COLUMNS;
    const int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS, state = blockIdx.x * COLUMNS + column;
    const bool real = state < CH * N;
    const int ch = min(state, CH * N - 1) / N, n = state % N, share = ceil_div(chunks, parts);
    const Rate rate = rate_of(A_log, ch % E, n);
    ends += size_t(blockIdx.y) * chunks * (CH * N) + (real ? state : 0);
    totals += size_t(blockIdx.y) * chunks * CH + ch;
    const float zero = rate.high != rate.high ? rate.high : 0.0f;
    float s = zero, sum = 0.0f;
    const int from = min(part * share, chunks), to = min(from + share, chunks);
#pragma unroll 8
    for (int i = from; i < to; i++) {
        const int chunk = backward ? chunks - 1 - i : i;
        const float total = totals[size_t(chunk) * CH];
        s = fmaf(decay_exact(total, rate), s, ends[size_t(chunk) * (CH * N)]);
        sum += total;
    }
    float *states = room, *sums = room + blockDim.x;
    for (int reach = 1; reach < parts; reach *= 2) {  // s, sum: over the last `reach` parts, this one included
        states[threadIdx.x] = s;
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (part >= reach) {
            s = fmaf(decay_exact(sum, rate), states[threadIdx.x - reach * COLUMNS], s);
            sum += sums[threadIdx.x - reach * COLUMNS];
        }
        __syncthreads();
    }
    states[threadIdx.x] = s;
    __syncthreads();
    s = part > 0 ? states[threadIdx.x - COLUMNS] : zero;
    if (!real) return;
    constexpr int AHEAD = 8;  // loads before the first store: what is stored might be what is loaded next
    for (int i = from; i < to; i += AHEAD) {
        float added[AHEAD], kept[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int chunk = backward ? chunks - 1 - min(i + k, to - 1) : min(i + k, to - 1);
            added[k] = ends[size_t(chunk) * (CH * N)];
            kept[k] = decay_exact(totals[size_t(chunk) * CH], rate);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (i + k >= to) break;
            ends[size_t(backward ? chunks - 1 - (i + k) : i + k) * (CH * N)] = s;
            s = fmaf(kept[k], s, added[k]);
        }
    }
}

// y (b, l, channels) of every chunk from the states before it (`starts`, as `ends` above; null: zero).
KERNEL __launch_bounds__(THREADS, RESIDENT) replay(
    const Token* t, int t_b, int t_l, int t_c, GIVEN_WEIGHTS, const float* starts, Token* y, int l, int length, int chunks
) {
    SHARED(float, w);
    float *x = w + WEIGHTS, *delta = x + ROWS * XP, *p = delta + ROWS * XP, *tokens = p + ROWS * PP;
    float *gate = tokens + (length + BACK) * GB * DP, *parts = gate + ROWS * XP;  // C · s of each lane, (TILE, LANES)
    const int image = blockIdx.x / chunks, chunk = blockIdx.x % chunks, first = chunk * length;
    const int lane = threadIdx.x, g = lane / Q / E, c = lane / Q % E, width = gridDim.y * (GB * DIM);
    t += (long long)(image) * t_b + (long long)(blockIdx.y) * (GB * DIM) * t_c;
    y += size_t(image) * l * width + blockIdx.y * (GB * DIM);
    fetch_weights(w, GIVEN);
    fetch_tokens(tokens, t, t_l, t_c, first - BACK, length + BACK, l);
    Rate rates[S];
    float state[S];
    begin(A_log, rates, state);
    const size_t at = (size_t(image) * gridDim.y + blockIdx.y) * chunks + chunk;
    if (starts != nullptr && lane < LANES) load_states(starts + at * (CH * N) + lane * S, state);
    __syncthreads();
    for (int start = 0; start < min(length, l - first); start += TILE) {
        const float* here = tokens + start * GB * DP;
        const int count = min(TILE, l - first - start);
        convolve(w, here, x);
#pragma unroll 2
        for (int item = threadIdx.x; item < CH * TILE; item += THREADS) {
            const int k = item / CH, ch = item % CH;
            const float z = gate_of(w, here, ch / E, ch % E, k);
            gate[(k * GB + ch / E) * XP + ch % E] = z * logistic(z);
        }
        __syncthreads();
        steps<false>(w, x, delta, p, count);
        states<0, 2 * N / 4>(w, x, p);
        __syncthreads();
        if (lane < LANES)
#pragma unroll 4
            for (int k = 0; k < TILE; k++) {
                const int row = k * GB + g;
                const float step = delta[row * XP + c], drive = step * x[row * XP + c];
                float b[S], read[S], sum = 0.0f;
                load_states(p + row * PP + lane % Q * S, b);
                load_states(p + row * PP + N + lane % Q * S, read);
#pragma unroll
                for (int s = 0; s < S; s++) {
                    state[s] = fmaf(decay_of(step, rates[s]), state[s], drive * b[s]);
                    sum = fmaf(read[s], state[s], sum);
                }
                parts[k * LANES + lane] = sum;
            }
        __syncthreads();
#pragma unroll 2
        for (int item = threadIdx.x; item < CH * TILE; item += THREADS) {
            const int k = item / CH, ch = item % CH, cell = (k * GB + ch / E) * XP + ch % E;
            float sum = w[W_SKIP + ch % E] * x[cell];
#pragma unroll
            for (int q = 0; q < Q; q++) sum += parts[item * Q + q];
            gate[cell] *= sum;
        }
        __syncthreads();
#pragma unroll 2
        for (int item = threadIdx.x; item < count * (GB * DIM); item += THREADS) {
            const int k = item / (GB * DIM), o = item % (GB * DIM), row = k * GB + o / DIM;
            float sum = 0.0f;
#pragma unroll INNER_QUADS
            for (int q = 0; q < EP / 4; q++)
                sum = dot4<E>(load4(w + W_OUT + o % DIM * XP + 4 * q), load4(gate + row * XP + 4 * q), sum, q);
            y[size_t(first + start + k) * width + o] = token_of(sum);
        }
        __syncthreads();
    }
}
