// The gradient of Mamba's mixer, parallel over chunks of one tile. Adjoints of states flow from the last chunk to the
// first: `adjoint_ends` finds what each chunk adds to that of the states before it, `link_chunks` of forward.cu carries
// it on, `gradients` then does a chunk at a time from the states before it and the adjoint after it, and `finish` adds
// up what is left in parts. Nothing is atomic: the same bits in every run.
#include "mixer.cuh"

constexpr int SUB = 4, SUBS = TILE / SUB;  // tokens whose states are in registers at once
constexpr float LN2 = 0.693147181f;

// Gradients of the weights, one after another in the order of the arguments.
constexpr int P_IN = 0;
constexpr int P_CONV = P_IN + 2 * E * DIM;
constexpr int P_CONV_BIAS = P_CONV + 4 * E;
constexpr int P_X = P_CONV_BIAS + E;
constexpr int P_STEP = P_X + (RANK + 2 * STATES) * E;
constexpr int P_STEP_BIAS = P_STEP + RANK * E;
constexpr int P_RATE = P_STEP_BIAS + E;
constexpr int P_SKIP = P_RATE + E * STATES;
constexpr int P_OUT = P_SKIP + E;
constexpr int PARAMETERS = P_OUT + DIM * E;

// Sums of a lane that are added up once a chunk; each (LANES)
constexpr int F_TAPS = 0, F_CONV_BIAS = 4, F_SKIP = 5, F_STEP_BIAS = 6, F_STEP = 7, F_RATE = F_STEP + RANK;
constexpr int FIELDS = F_RATE + S;

// An outer product summed over rows: 4×4 numbers a thread, rows dealt out to `slices` threads
template <int A, int B, int LIMIT> struct Outer {
    static constexpr int tiles = ceil_div(A, 4) * ceil_div(B, 4);
    static constexpr int most = THREADS / tiles < LIMIT / tiles ? THREADS / tiles : LIMIT / tiles;
    static constexpr int slices = most < 1 ? 1 : most > 8 ? 8 : most;
    static constexpr int room = slices * tiles * 16;
};
typedef Outer<LOW + RANK, E, THREADS> OuterX;
typedef Outer<E, DIM, 64> OuterIn;
typedef Outer<DIM, E, 64> OuterOut;
constexpr int PULLED = (TILE + BACK) * GB * XP;  // what the convolution hands back to its inputs
constexpr int OUTER_ROOM = PULLED + 2 * OuterIn::room + OuterOut::room;
constexpr int SHARE_ROOM = 2 * SUB * CH * N > OuterX::room ? 2 * SUB * CH * N : OuterX::room;
constexpr int ROOM = SHARE_ROOM > OUTER_ROOM ? SHARE_ROOM : OUTER_ROOM;
constexpr int PARTS = (3 * SUB > FIELDS ? 3 * SUB : FIELDS) * LANES;

// (slice, tile, 4, 4) of Σ over rows of a[row] ⊗ b[row]
template <typename O, int A, int B>
DEVICE void outer(const float* a, int a_pitch, const float* b, int b_pitch, int rows, float* to) {
    constexpr int ACROSS = ceil_div(B, 4);
    for (int item = threadIdx.x; item < O::slices * O::tiles; item += THREADS) {
        const int tile = item % O::tiles, i = tile / ACROSS * 4, j = tile % ACROSS * 4;
        float4 sums[4] = {};
#pragma unroll 2
        for (int row = item / O::tiles; row < rows; row += O::slices) {
            const float4 left = load4(a + row * a_pitch + i), right = load4(b + row * b_pitch + j);
            sums[0] = fma4(left.x, right, sums[0]);
            sums[1] = fma4(left.y, right, sums[1]);
            sums[2] = fma4(left.z, right, sums[2]);
            sums[3] = fma4(left.w, right, sums[3]);
        }
        for (int k = 0; k < 4; k++) store4(to + item * 16 + k * 4, sums[k]);
    }
}

template <typename O, int B> DEVICE float outer_sum(const float* from, int i, int j) {
    const int tile = i / 4 * ceil_div(B, 4) + j / 4;
    float sum = 0.0f;
    for (int slice = 0; slice < O::slices; slice++) sum += from[(slice * O::tiles + tile) * 16 + i % 4 * 4 + j % 4];
    return sum;
}

// What the result's gradient says to y · SiLU(z) of an inner channel
DEVICE float before_out(const float* w, const float* dy, int row, int c) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < DIM; i += 4) {
        const float4 v = load4(dy + row * DP + i);
        const float* weight = w + W_OUT + i * XP + c;
        sum = fmaf(weight[0], v.x, sum);
        if (i + 1 < DIM) sum = fmaf(weight[XP], v.y, sum);
        if (i + 2 < DIM) sum = fmaf(weight[2 * XP], v.z, sum);
        if (i + 3 < DIM) sum = fmaf(weight[3 * XP], v.w, sum);
    }
    return sum;
}

// What each chunk adds to the adjoint of the states before it. Layout and grid as of `chunk_ends`, chunks of one tile
KERNEL __launch_bounds__(THREADS, RESIDENT) adjoint_ends(
    const float* t, int t_b, int t_l, int t_c, const float* dy, int dy_b, int dy_l, int dy_c, GIVEN_WEIGHTS,
    float* ends, int l, int chunks
) {
    SHARED(float, w);
    float *x = w + WEIGHTS, *delta = x + ROWS * XP, *g = delta + ROWS * XP, *p = g + ROWS * XP;
    float *tokens = p + ROWS * PP, *dys = tokens + (TILE + BACK) * GB * DP;
    const int image = blockIdx.x / chunks, chunk = blockIdx.x % chunks, first = chunk * TILE;
    const int lane = threadIdx.x, group = lane / Q / E, c = lane / Q % E;
    t += (long long)(image) * t_b + (long long)(blockIdx.y) * (GB * DIM) * t_c;
    dy += (long long)(image) * dy_b + (long long)(blockIdx.y) * (GB * DIM) * dy_c;
    fetch_weights(w, GIVEN);
    fetch_tokens(tokens, t, t_l, t_c, first - BACK, TILE + BACK, l);
    fetch_tokens(dys, dy, dy_l, dy_c, first, TILE, l);
    Rate rates[S];
    float adjoint[S], passed = 0.0f;
    begin(A_log, rates, adjoint);
    __syncthreads();
    convolve(w, tokens, x);
#pragma unroll 2
    for (int item = threadIdx.x; item < CH * TILE; item += THREADS) {
        const int k = item / CH, ch = item % CH, row = k * GB + ch / E;
        const float z = gate_of(w, tokens, ch / E, ch % E, k);
        g[row * XP + ch % E] = before_out(w, dys, row, ch % E) * (z * logistic(z));
    }
    __syncthreads();
    steps<false>(w, x, delta, p, l - first);
    states<N / 4, 2 * N / 4>(w, x, p);
    __syncthreads();
    if (lane >= LANES) return;
#pragma unroll 4
    for (int k = 0; k < TILE; k++) {
        const int row = k * GB + group;
        const float slope = g[row * XP + c];
        float read[S];
        load_states(p + row * PP + N + lane % Q * S, read);
        passed += delta[row * XP + c];
#pragma unroll
        for (int s = 0; s < S; s++) adjoint[s] = fmaf(exp2_fast(passed * rates[s].high), slope * read[s], adjoint[s]);
    }
    const size_t at = (size_t(image) * gridDim.y + blockIdx.y) * chunks + chunk;
    store_states(ends + at * (CH * N) + lane * S, adjoint);
}

// Where a chunk's numbers lie in shared memory: rows (token, group)
struct Chunk {
    float *w, *tokens, *dy, *p;          // p: B, C and what Δ comes from, later their gradients
    float *x, *z, *g, *dv, *delta;       // g: gradient of y, later y · SiLU(z); dv: of that, later of x; z, Δ: later theirs
    float *checks, *room, *parts, *sums;  // states at every SUB-th token; shares of sums; gradients of the weights
};

DEVICE Chunk chunk_at(float* w) {
    Chunk m;
    m.w = w;
    m.tokens = w + WEIGHTS;
    m.dy = m.tokens + (TILE + BACK) * GB * DP;
    m.p = m.dy + ROWS * DP;
    m.x = m.p + ROWS * PP;
    m.z = m.x + ROWS * XP;
    m.g = m.z + ROWS * XP;
    m.dv = m.g + ROWS * XP;
    m.delta = m.dv + ROWS * XP;
    m.checks = m.delta + ROWS * XP;
    m.room = m.checks + SUBS * LANES * S;
    m.parts = m.room + ROOM;
    m.sums = m.parts + PARTS;
    return m;
}

// What lies before and behind the scan: x, z, the gradients of y · SiLU(z) and of y; then Δ, B, C
DEVICE void prepare(const Chunk& m, int count) {
    convolve(m.w, m.tokens, m.x);
#pragma unroll 2
    for (int item = threadIdx.x; item < CH * TILE; item += THREADS) {
        const int k = item / CH, ch = item % CH, row = k * GB + ch / E, cell = row * XP + ch % E;
        const float z = gate_of(m.w, m.tokens, ch / E, ch % E, k), dv = before_out(m.w, m.dy, row, ch % E);
        m.z[cell] = z;
        m.dv[cell] = dv;
        m.g[cell] = dv * (z * logistic(z));
    }
    __syncthreads();
    steps<true>(m.w, m.x, m.delta, m.p, count);
    states<0, 2 * N / 4>(m.w, m.x, m.p);
    __syncthreads();
}

// The states before every SUB-th token, from those before the chunk
DEVICE void check_states(const Chunk& m, const Rate (&rates)[S], float (&state)[S]) {
    const int lane = threadIdx.x, group = lane / Q / E, c = lane / Q % E;
#pragma unroll 1
    for (int sub = 0; sub < SUBS; sub++) {
        store_states(m.checks + (sub * LANES + lane) * S, state);
        if (sub < SUBS - 1)
#pragma unroll
            for (int j = 0; j < SUB; j++) {
                const int row = (sub * SUB + j) * GB + group;
                const float step = m.delta[row * XP + c], drive = step * m.x[row * XP + c];
                float b[S];
                load_states(m.p + row * PP + lane % Q * S, b);
#pragma unroll
                for (int s = 0; s < S; s++) state[s] = fmaf(decay_of(step, rates[s]), state[s], drive * b[s]);
            }
    }
}

// SUB tokens forth and back. Leaves this lane's shares of dB and dC in `room`, (2, SUB, CH, N), and in `parts`,
// (3, SUB, LANES), of C · s, of λ · B and of Σ A · λ · (what is left of the state before)
DEVICE void walk_back(
    const Chunk& m, int sub, const Rate (&rates)[S], float (&adjoint)[S], float (&rate_sums)[S]
) {
    const int lane = threadIdx.x, group = lane / Q / E, c = lane / Q % E;
    float decays[SUB][S], before[SUB][S], state[S];
    load_states(m.checks + (sub * LANES + lane) * S, state);
#pragma unroll
    for (int j = 0; j < SUB; j++) {
        const int row = (sub * SUB + j) * GB + group;
        const float step = m.delta[row * XP + c], drive = step * m.x[row * XP + c];
        float b[S];
        load_states(m.p + row * PP + lane % Q * S, b);
#pragma unroll
        for (int s = 0; s < S; s++) {
            before[j][s] = state[s];
            decays[j][s] = decay_of(step, rates[s]);
            state[s] = fmaf(decays[j][s], state[s], drive * b[s]);
        }
    }
#pragma unroll
    for (int j = SUB - 1; j >= 0; j--) {
        const int row = (sub * SUB + j) * GB + group;
        const float step = m.delta[row * XP + c], drive = step * m.x[row * XP + c], slope = m.g[row * XP + c];
        float b[S], read[S], y = 0.0f, pull = 0.0f, turn = 0.0f;
        load_states(m.p + row * PP + lane % Q * S, b);
        load_states(m.p + row * PP + N + lane % Q * S, read);
#pragma unroll
        for (int s = 0; s < S; s++) {
            y = fmaf(read[s], state[s], y);
            adjoint[s] = fmaf(slope, read[s], adjoint[s]);
            pull = fmaf(adjoint[s], b[s], pull);
            b[s] = adjoint[s] * drive;    // now dB's share
            read[s] = slope * state[s];   // and dC's
            adjoint[s] *= decays[j][s];
            const float kept = adjoint[s] * before[j][s];
            turn = fmaf(kept, rates[s].high, turn);
            rate_sums[s] = fmaf(kept, step, rate_sums[s]);
            state[s] = before[j][s];
        }
        store_states(m.room + (j * LANES + lane) * S, b);
        store_states(m.room + ((SUB + j) * LANES + lane) * S, read);
        m.parts[j * LANES + lane] = y;
        m.parts[(SUB + j) * LANES + lane] = pull;
        m.parts[(2 * SUB + j) * LANES + lane] = turn * LN2;
    }
}

// Sums over channels -> dB, dC
DEVICE void add_channels(const Chunk& m, int sub) {
    for (int item = threadIdx.x; item < 2 * SUB * GB * N; item += THREADS) {
        const int n = item % N, g = item / N % GB, j = item / (N * GB);  // j: token, of B, then of C
        const float* share = m.room + (j * CH + g * E) * N + n;
        float sum = 0.0f;
#pragma unroll 4
        for (int c = 0; c < E; c++) sum += share[c * N];
        m.p[((sub * SUB + j % SUB) * GB + g) * PP + j / SUB * N + n] = sum;
    }
}

// What a lane, here one of Q of channel lane % CH, sums over its tokens
struct Sums { float taps[4], conv_bias, skip, step_bias, step[RANK]; };

// Sums over a channel's lanes -> y · SiLU(z), dz, the gradient of what softplus sees, and x's by way of the scan
DEVICE void add_states(const Chunk& m, int sub, Sums& sums) {
    const int ch = threadIdx.x % CH, c = ch % E;
    const float skip = m.w[W_SKIP + c];
    for (int j = threadIdx.x / CH; j < SUB; j += Q) {
        const int row = (sub * SUB + j) * GB + ch / E, cell = row * XP + c;
        const float x = m.x[cell], z = m.z[cell], slope = m.g[cell], step = m.delta[cell], dv = m.dv[cell];
        float y = skip * x, pull = 0.0f, turn = 0.0f;
        for (int q = 0; q < Q; q++) {
            y += m.parts[j * LANES + ch * Q + q];
            pull += m.parts[(SUB + j) * LANES + ch * Q + q];
            turn += m.parts[(2 * SUB + j) * LANES + ch * Q + q];
        }
        const float s = logistic(z), dstep = fmaf(x, pull, turn) * -expm1f(-step);  // 1 - e^-Δ: softplus's slope
        m.g[cell] = y * (z * s);
        m.z[cell] = dv * y * (s * (1.0f + z * (1.0f - s)));
        m.delta[cell] = dstep;
        m.dv[cell] = fmaf(step, pull, skip * slope);
        sums.skip = fmaf(slope, x, sums.skip);
        sums.step_bias += dstep;
#pragma unroll
        for (int r = 0; r < RANK; r++) sums.step[r] = fmaf(dstep, m.p[row * PP + LOW + r], sums.step[r]);
    }
}

// The gradient of what Δ comes from, in the place of that
DEVICE void before_steps(const Chunk& m) {
    for (int item = threadIdx.x; item < ROWS * RANK; item += THREADS) {
        const int row = item % ROWS, r = item / ROWS;
        float sum = 0.0f;
        for (int c = 0; c < E; c++) sum = fmaf(m.w[W_STEP + c * RANK + r], m.delta[row * XP + c], sum);
        m.p[row * PP + LOW + r] = sum;
    }
}

// dx, complete
DEVICE void before_projection(const Chunk& m) {
    for (int item = threadIdx.x; item < ROWS * (EP / 4); item += THREADS) {
        const int row = item % ROWS, c = item / ROWS * 4;
        const float* weight = m.w + W_STATES + c * 2 * N;
        float4 sum = load4(m.dv + row * XP + c);
        for (int r = 0; r < RANK; r++) sum = fma4(m.p[row * PP + LOW + r], load4(m.w + W_LOW + r * EP + c), sum);
#pragma unroll 2
        for (int o = 0; o < 2 * N; o += 4) {
            const float4 v = load4(m.p + row * PP + o);
            sum.x = dot4<4>(load4(weight + o), v, sum.x, 0);
            sum.y = dot4<4>(load4(weight + 2 * N + o), v, sum.y, 0);
            sum.z = dot4<4>(load4(weight + 4 * N + o), v, sum.z, 0);
            sum.w = dot4<4>(load4(weight + 6 * N + o), v, sum.w, 0);
        }
        store4(m.dv + row * XP + c, sum);
    }
}

// Back through SiLU, to the convolution's result
DEVICE void before_silu(const Chunk& m, Sums& sums) {
    const int ch = threadIdx.x % CH, g = ch / E, c = ch % E;
#pragma unroll 1
    for (int run = threadIdx.x / CH; run < TILE / RUN; run += Q) {
        float raw[RUN + BACK];
        raw_of(m.w, m.tokens + run * RUN * GB * DP, g, c, raw);
#pragma unroll
        for (int j = 0; j < RUN; j++) {
            const int cell = ((run * RUN + j) * GB + g) * XP + c;
            const float v = convolved(m.w, raw, c, j), s = logistic(v), d = m.dv[cell] * (s * (1.0f + v * (1.0f - s)));
            m.dv[cell] = d;
            sums.conv_bias += d;
#pragma unroll
            for (int tap = 0; tap < 4; tap++) sums.taps[tap] = fmaf(d, raw[j + tap], sums.taps[tap]);
        }
    }
}

// Back through the convolution, to BACK tokens before the chunk and to its own: rows (token, group) in `room`
DEVICE void before_convolution(const Chunk& m) {
    for (int item = threadIdx.x; item < (TILE + BACK) * CH; item += THREADS) {
        const int j = item / CH, ch = item % CH, g = ch / E, c = ch % E;
        float sum = 0.0f;
#pragma unroll
        for (int tap = 0; tap < 4; tap++)
            if (j - tap >= 0 && j - tap < TILE)
                sum = fmaf(m.w[W_CONV + 4 * c + tap], m.dv[((j - tap) * GB + g) * XP + c], sum);
        m.room[(j * GB + g) * XP + c] = sum;
    }
}

// sum + Σ over c of v[c] · weight[c], weight at pitch DP
DEVICE float4 back_in(const float* weight, const float* v, float4 sum) {
#pragma unroll INNER_QUADS
    for (int c = 0; c < EP; c += 4) {
        const float4 four = load4(v + c);
        sum = fma4(four.x, load4(weight + c * DP), sum);
        if (E % 4 == 0 || c + 1 < E) sum = fma4(four.y, load4(weight + (c + 1) * DP), sum);
        if (E % 4 == 0 || c + 2 < E) sum = fma4(four.z, load4(weight + (c + 2) * DP), sum);
        if (E % 4 == 0 || c + 3 < E) sum = fma4(four.w, load4(weight + (c + 3) * DP), sum);
    }
    return sum;
}

// The gradient of the tokens, at pitch `width`: of the chunk's own into dt, of the BACK before into the halo
DEVICE void before_tokens(const Chunk& m, float* dt, float* halo, int width, int count) {
    constexpr int REACHED = (TILE + BACK) * GB;
    for (int item = threadIdx.x; item < REACHED * ceil_div(DIM, 4); item += THREADS) {
        const int row = item % REACHED, i = item / REACHED * 4, k = row / GB - BACK;
        float4 sum = back_in(m.w + W_IN + i, m.room + row * XP, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
        if (k >= 0) sum = back_in(m.w + W_IN + E * DP + i, m.z + (row - BACK * GB) * XP, sum);
        if (k >= count || (k < 0 && halo == nullptr)) continue;
        float* to = (k < 0 ? halo + (k + BACK) * width : dt + size_t(k) * width) + row % GB * DIM + i;
        to[0] = sum.x;
        if (i + 1 < DIM) to[1] = sum.y;
        if (i + 2 < DIM) to[2] = sum.z;
        if (i + 3 < DIM) to[3] = sum.w;
    }
}

// The chunk's share of x_proj's gradient
DEVICE void add_x_proj(const Chunk& m) {
    for (int i = threadIdx.x; i < (RANK + 2 * STATES) * E; i += THREADS) {
        const int row = i / E - RANK;  // parameters: what Δ comes from, B, C
        const int o = row < 0 ? LOW + row + RANK : row < STATES ? row : N + row - STATES;
        m.sums[P_X + i] += outer_sum<OuterX, E>(m.room, o, i % E);
    }
}

// Each lane's sums into `parts`
DEVICE void leave_fields(
    const Chunk& m, const Sums& sums, const Rate (&rates)[S], const float (&rate_sums)[S]
) {
    float* to = m.parts + threadIdx.x;
#pragma unroll
    for (int k = 0; k < 4; k++) to[(F_TAPS + k) * LANES] = sums.taps[k];
    to[F_CONV_BIAS * LANES] = sums.conv_bias;
    to[F_SKIP * LANES] = sums.skip;
    to[F_STEP_BIAS * LANES] = sums.step_bias;
#pragma unroll
    for (int r = 0; r < RANK; r++) to[(F_STEP + r) * LANES] = sums.step[r];
#pragma unroll
    for (int s = 0; s < S; s++) to[(F_RATE + s) * LANES] = rate_sums[s] * (rates[s].high * LN2);  // dA_log = A · dA
}

DEVICE float field_sum(const float* field, int c) {
    float sum = 0.0f;
    for (int i = c; i < LANES; i += E) sum += field[i];  // lanes of the same inner channel, in all groups
    return sum;
}

DEVICE void add_fields(const Chunk& m) {
    for (int i = threadIdx.x; i < F_RATE * E; i += THREADS) {
        const int field = i / E, c = i % E;
        const int to = field < 4            ? P_CONV + 4 * c + field
                       : field == F_CONV_BIAS ? P_CONV_BIAS + c
                       : field == F_SKIP      ? P_SKIP + c
                       : field == F_STEP_BIAS ? P_STEP_BIAS + c
                                              : P_STEP + c * RANK + field - F_STEP;
        m.sums[to] += field_sum(m.parts + field * LANES, c);
    }
    for (int i = threadIdx.x; i < E * STATES; i += THREADS) {
        const int c = i / STATES, n = i % STATES;
        const float* field = m.parts + (F_RATE + n % S) * LANES + c * Q + n / S;
        float sum = 0.0f;
        for (int g = 0; g < GB; g++) sum += field[g * E * Q];
        m.sums[P_RATE + i] += sum;
    }
}

DEVICE void outer_in_out(const Chunk& m) {
    float* to = m.room + PULLED;
    outer<OuterIn, E, DIM>(m.room, XP, m.tokens, DP, (TILE + BACK) * GB, to);
    outer<OuterIn, E, DIM>(m.z, XP, m.tokens + BACK * GB * DP, DP, ROWS, to + OuterIn::room);
    outer<OuterOut, DIM, E>(m.dy, DP, m.g, XP, ROWS, to + 2 * OuterIn::room);
}

DEVICE void add_in_out(const Chunk& m) {
    const float* from = m.room + PULLED;
    for (int i = threadIdx.x; i < 2 * E * DIM; i += THREADS) {
        const int row = i / DIM;
        m.sums[P_IN + i] += outer_sum<OuterIn, DIM>(from + (row < E ? 0 : OuterIn::room), row % E, i % DIM);
    }
    for (int i = threadIdx.x; i < DIM * E; i += THREADS)
        m.sums[P_OUT + i] += outer_sum<OuterOut, E>(from + 2 * OuterIn::room, i / E, i % E);
}

// dt (b, l, channels), halo (b, chunks, BACK, channels): what goes to the tokens before each chunk; and of each block
// a row of partials (blocks, PARAMETERS). starts, adjoints: as `ends` of `chunk_ends`; null where there is one chunk.
// grid (any number, blocks of groups): block i does chunks i, i + gridDim.x, … of the `works` = b · chunks
KERNEL __launch_bounds__(THREADS) gradients(
    const float* t, int t_b, int t_l, int t_c, const float* dy, int dy_b, int dy_l, int dy_c, GIVEN_WEIGHTS,
    const float* starts, const float* adjoints, float* dt, float* halo, float* partials, int l, int chunks, int works
) {
    SHARED(float, memory);
    Chunk m = chunk_at(memory);
    const int lane = threadIdx.x, width = gridDim.y * (GB * DIM), base = blockIdx.y * (GB * DIM);
    partials += (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * PARAMETERS;
    if (WIDE) m.sums = partials;  // too many for shared memory
    for (int i = threadIdx.x; i < PARAMETERS; i += THREADS) m.sums[i] = 0.0f;
    fetch_weights(m.w, GIVEN);
    Rate rates[S];
    float zero[S];
    begin(A_log, rates, zero);
    for (int work = blockIdx.x; work < works; work += gridDim.x) {
        const int image = work / chunks, chunk = work % chunks, first = chunk * TILE, count = min(TILE, l - first);
        const size_t at = ((size_t(image) * gridDim.y + blockIdx.y) * chunks + chunk) * (CH * N) + lane * S;
        fetch_tokens(m.tokens, t + (long long)(image) * t_b + (long long)(base) * t_c, t_l, t_c, first - BACK, TILE + BACK, l);
        fetch_tokens(m.dy, dy + (long long)(image) * dy_b + (long long)(base) * dy_c, dy_l, dy_c, first, TILE, l);
        float state[S], adjoint[S], rate_sums[S] = {};
#pragma unroll
        for (int s = 0; s < S; s++) state[s] = adjoint[s] = zero[s];
        if (chunks > 1 && lane < LANES) {
            load_states(starts + at, state);
            load_states(adjoints + at, adjoint);
        }
        __syncthreads();
        prepare(m, count);
        if (lane < LANES) check_states(m, rates, state);
        Sums sums = {};
#pragma unroll 1
        for (int sub = SUBS - 1; sub >= 0; sub--) {
            if (lane < LANES) walk_back(m, sub, rates, adjoint, rate_sums);
            __syncthreads();
            add_channels(m, sub);
            if (lane < LANES) add_states(m, sub, sums);
            __syncthreads();
        }
        before_steps(m);
        __syncthreads();
        before_projection(m);
        outer<OuterX, LOW + RANK, E>(m.p, PP, m.x, XP, ROWS, m.room);
        __syncthreads();
        add_x_proj(m);
        if (lane < LANES) {
            before_silu(m, sums);
            leave_fields(m, sums, rates, rate_sums);
        }
        __syncthreads();
        before_convolution(m);
        add_fields(m);
        __syncthreads();
        float* before = chunk > 0 ? halo + size_t(work) * BACK * width + base : nullptr;
        before_tokens(m, dt + (size_t(image) * l + first) * width + base, before, width, count);
        outer_in_out(m);
        __syncthreads();
        add_in_out(m);
    }
    if (WIDE) return;
    __syncthreads();
    for (int i = threadIdx.x; i < PARAMETERS; i += THREADS) partials[i] = m.sums[i];
}

// The first `summing` blocks of 256: the weights' gradients, (PARAMETERS), of the partials of all blocks. The others:
// dt of the BACK tokens before each chunk but the first takes its halo, `count` = b · (chunks - 1) · BACK · width numbers
KERNEL __launch_bounds__(256) finish(
    const float* partials, int blocks, float* totals, const float* halo, float* dt, int summing, int l, int chunks,
    int width, int count
) {
    SHARED(double, shares);
    if (int(blockIdx.x) >= summing) {
        const int i = (blockIdx.x - summing) * 256 + threadIdx.x;
        if (i >= count) return;
        const int rest = i / (BACK * width), within = i % (BACK * width);
        const int image = rest / (chunks - 1), chunk = rest % (chunks - 1) + 1;
        dt[(size_t(image) * l + chunk * TILE - BACK) * width + within] +=
            halo[(size_t(image) * chunks + chunk) * BACK * width + within];
        return;
    }
    const int i = blockIdx.x * 32 + threadIdx.x % 32, share = threadIdx.x / 32;
    double sum = 0.0;
    if (i < PARAMETERS)
#pragma unroll 8
        for (int block = share; block < blocks; block += 8) sum += partials[size_t(block) * PARAMETERS + i];
    shares[threadIdx.x] = sum;
    __syncthreads();
    if (share > 0 || i >= PARAMETERS) return;
    for (int k = 1; k < 8; k++) sum += shares[k * 32 + threadIdx.x];
    totals[i] = float(sum);
}
