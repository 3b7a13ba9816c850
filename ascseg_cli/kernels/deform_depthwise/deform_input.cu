// The gradient of x, gathered: no atomic addition of floats, so it is the same to the bit in every run.
//
// A block owns TILE × TILE pixels of dx. The samples that fall on them are sorted, in shared memory, by the cell
// between four pixels in which they lie, and in a cell by the pixel and tap they come from. A thread adds up a cell's
// samples; cells whose row and column have the same parity share no pixel, so all of these go on at once.
// The grid is (tiles, slices of channels, images).
#include "deform.cuh"
#include "marks.cuh"

constexpr int SIDE = TILE + 1, CELLS = SIDE * SIDE;   // cells begin one row and column before the tile
constexpr int ITEMS = WINDOW * WINDOW * TAPS;         // a pixel of a window and a tap: fits 16 bits
constexpr unsigned short NOWHERE = 0xffff;

typedef unsigned short Index;

struct Tile { int row, column, h, w; };  // its first pixel; the image's size
struct Origin { int row, column; };      // of a window

struct Source { int row, column, tap; };

DEVICE Source source_of(int item, Origin o) {
    const int pixel = item / TAPS;
    return {o.row + pixel / WINDOW, o.column + pixel % WINDOW, item % TAPS};
}

struct Offsets { const float* raw; int pitch; const float4* norms; };

DEVICE Sample sample_from(Source s, Offsets offsets, const Tile& tile) {
    const float* const at = offsets.raw + (s.row * tile.w + s.column) * offsets.pitch + 2 * s.tap;
#if PAIRS
    const float2 z = *reinterpret_cast<const float2*>(at);
#else
    const float2 z = make_float2(at[0], at[1]);
#endif
    const float down = offset_normed(z.x, offsets.norms, 2 * s.tap);
    const float right = offset_normed(z.y, offsets.norms, 2 * s.tap + 1);
    return sample_of(s.tap, s.row, s.column, down, right, tile.h, tile.w);
}

DEVICE bool in_window(Source s, Origin o) {
    return unsigned(s.row - o.row) < unsigned(WINDOW) && unsigned(s.column - o.column) < unsigned(WINDOW);
}

// The cell of the tile in which an item's sample lies, or NOWHERE.
DEVICE Index cell_of(int item, Origin o, bool far, Offsets offsets, const Tile& tile) {
    const Source s = source_of(item, o);
    const bool exists = unsigned(s.row) < unsigned(tile.h) && unsigned(s.column) < unsigned(tile.w);
    if (!exists || (far && in_window(s, {tile.row - MARGIN, tile.column - MARGIN}))) return NOWHERE;
    const Sample at = sample_from(s, offsets, tile);
    const int i = at.row - (tile.row - 1), j = at.column - (tile.column - 1);
    return at.row >= -1 && unsigned(i) < unsigned(SIDE) && unsigned(j) < unsigned(SIDE) ? i * SIDE + j : NOWHERE;
}

// Counts of the cells -> where each cell's items begin. Whole block; ends with a barrier.
DEVICE void begin_from_counts(int* counts, int* scratch) {
    constexpr int SHARE = ceil_div(CELLS, THREADS);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = threadIdx.x * SHARE;
    int own = 0;
    for (int i = first; i < min(first + SHARE, CELLS); i++) own += counts[i];
    int upto = own;
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, upto, step);
        if (lane >= step) upto += other;
    }
    if (lane == 31) scratch[warp] = upto;
    __syncthreads();
    int begin = upto - own;
    for (int i = 0; i < warp; i++) begin += scratch[i];
    for (int i = first; i < min(first + SHARE, CELLS); i++) {
        const int count = counts[i];
        counts[i] = begin;
        begin += count;
    }
    __syncthreads();
}

struct Sorting { int *ends, *scratch; Index *cells, *mixed, *sorted; };

DEVICE int begin_of(const int* ends, int cell) { return cell > 0 ? ends[cell - 1] : 0; }

// The items of a window that fall on the tile, by cell: those of cell i end at ends[i]. Returns how many there are.
// Atomics put the items of a cell in any order; then each finds its place by how many are smaller. Starts and ends
// with a barrier.
DEVICE int sort_items(const Sorting& to, Origin o, bool far, Offsets offsets, const Tile& tile) {
    __syncthreads();
    for (int i = threadIdx.x; i < CELLS; i += THREADS) to.ends[i] = 0;
    __syncthreads();
#pragma unroll 2
    for (int item = threadIdx.x; item < ITEMS; item += THREADS) {
        const Index cell = cell_of(item, o, far, offsets, tile);
        to.cells[item] = cell;
        if (cell != NOWHERE) atomicAdd(&to.ends[cell], 1);
    }
    __syncthreads();
    begin_from_counts(to.ends, to.scratch);
#pragma unroll 2
    for (int item = threadIdx.x; item < ITEMS; item += THREADS) {
        const Index cell = to.cells[item];
        if (cell != NOWHERE) to.mixed[atomicAdd(&to.ends[cell], 1)] = item;
    }
    __syncthreads();
#pragma unroll 2
    for (int item = threadIdx.x; item < ITEMS; item += THREADS) {
        const Index cell = to.cells[item];
        if (cell == NOWHERE) continue;
        const int begin = begin_of(to.ends, cell), end = to.ends[cell];
        int before = begin;
        for (int i = begin; i < end; i++) before += to.mixed[i] < item;
        to.sorted[before] = item;
    }
    __syncthreads();
    return to.ends[CELLS - 1];
}

// Adds v to a pixel of the tile, if it is one.
DEVICE void add_to(float* out, int i, int j, int slot, const Numbers& v) {
    if (unsigned(i) >= unsigned(TILE) || unsigned(j) >= unsigned(TILE)) return;
    float* const at = out + ((i * TILE + j) * LANES + slot) * VEC;
    Numbers sum = load(at);
    for (int n = 0; n < VEC; n++) sum.at[n] += v.at[n];
    store(at, sum);
}

// The shares of one cell's items in its four pixels, a thread's channels.
DEVICE void add_cell(
    int i, int j, int slot, const Sorting& from, Origin o, Offsets offsets, const Tile& tile,
    const float* dy, int dy_pitch, const float* taps, float* out
) {
    const int cell = i * SIDE + j, begin = begin_of(from.ends, cell), end = from.ends[cell];
    if (begin == end) return;
    Numbers a = zeros(), b = zeros(), c = zeros(), d = zeros();
#pragma unroll 1
    for (int n = begin; n < end; n++) {
        const Source s = source_of(from.sorted[n], o);
        const Numbers slope = load(dy + (s.row * tile.w + s.column) * dy_pitch);
        const Sample at = sample_from(s, offsets, tile);
        const Numbers weights = load(taps + s.tap * SLICE + slot * VEC);
        const float up = 1.0f - at.down, left = 1.0f - at.right;
        const float ul = up * left, ur = up * at.right, ll = at.down * left, lr = at.down * at.right;
        for (int m = 0; m < VEC; m++) {
            const float pull = slope.at[m] * weights.at[m];
            a.at[m] = fmaf(pull, ul, a.at[m]);
            b.at[m] = fmaf(pull, ur, b.at[m]);
            c.at[m] = fmaf(pull, ll, c.at[m]);
            d.at[m] = fmaf(pull, lr, d.at[m]);
        }
    }
    add_to(out, i - 1, j - 1, slot, a);
    add_to(out, i - 1, j, slot, b);
    add_to(out, i, j - 1, slot, c);
    add_to(out, i, j, slot, d);
}

DEVICE void add_cells(
    const Sorting& from, Origin o, Offsets offsets, const Tile& tile,
    const float* dy, int dy_pitch, const float* taps, float* out
) {
    for (int parity = 0; parity < 4; parity++) {
        const int i = parity / 2, j = parity % 2, columns = (SIDE - j + 1) / 2, rows = (SIDE - i + 1) / 2;
        for (int n = threadIdx.x; n < rows * columns * LANES; n += THREADS) {
            const int cell = n / LANES, slot = n % LANES, row = cell / columns;
            if (int(blockIdx.y) * SLICE + slot * VEC < C)
                add_cell(
                    i + 2 * row, j + 2 * (cell - row * columns), slot, from, o, offsets, tile,
                    dy + slot * VEC, dy_pitch, taps, out
                );
        }
        __syncthreads();
    }
}

DEVICE void store_tile(const float* out, bool finite, const Tile& tile, float* dx) {
    for (int n = threadIdx.x; n < TILE * TILE * LANES; n += THREADS) {
        const int pixel = n / LANES, slot = n % LANES;
        const int row = tile.row + pixel / TILE, column = tile.column + pixel % TILE;
        if (row >= tile.h || column >= tile.w || int(blockIdx.y) * SLICE + slot * VEC >= C) continue;
        Numbers v = load(out + n * VEC);
        for (int m = 0; m < VEC; m++) v.at[m] = finite ? v.at[m] : __int_as_float(0x7fffffff);
        store(dx + (row * tile.w + column) * C + slot * VEC, v);
    }
}

// dy, offset (b, h, w, their pitch), weight (C, 9), marks as deform_gradients has left them -> dx (b, h, w, C)
KERNEL __launch_bounds__(THREADS, 5) deform_input(
    const float* dy, int dy_pitch, const float* offset, int offset_pitch, const float* weight,
    const float* statistics, const float* gamma, const float* beta, float eps, const Mark* marks,
    float* dx, int h, int w
) {
    SHARED(float, shared);
    float4* const norms = reinterpret_cast<float4*>(shared);
    float* const out = shared + 4 * OFFSETS;
    float* const taps = out + TILE * TILE * SLICE;
    int* const ends = reinterpret_cast<int*>(taps + TAP_FLOATS);
    Index* const cells = reinterpret_cast<Index*>(ends + CELLS + THREADS / 32);
    const Sorting sorting = {ends, ends + CELLS, cells, cells + ITEMS, cells + 2 * ITEMS};
    const Tiling t = tiling_of(h, w);
    const Tile tile = {int(blockIdx.x) / t.columns * TILE, int(blockIdx.x) % t.columns * TILE, h, w};
    const size_t image = size_t(blockIdx.z) * h * w;
    load_taps(taps, weight, blockIdx.y * SLICE);
    load_norms(norms, statistics, gamma, beta, eps);
    for (int i = threadIdx.x; i < TILE * TILE * SLICE; i += THREADS) out[i] = 0.0f;
    __syncthreads();

    dy += image * dy_pitch + blockIdx.y * SLICE;
    const Offsets offsets = {offset + image * offset_pitch, offset_pitch, norms};
    const bool finite = marks[0] == 0;
    const Mark mark = marks[1 + size_t(blockIdx.z) * t.tiles + blockIdx.x];
    const int last = finite && mark ? t.windows : 0;
    for (int window = -1; window < last && finite; window++) {  // first what lies around, then what comes from afar
        const bool far = window >= 0;
        if (far && !(mark >> window / t.group & 1)) continue;
        const Origin around = {tile.row - MARGIN, tile.column - MARGIN};
        const Origin other = {window / t.window_columns * WINDOW, window % t.window_columns * WINDOW};
        const Origin o = far ? other : around;
        if (sort_items(sorting, o, far, offsets, tile) > 0)
            add_cells(sorting, o, offsets, tile, dy, dy_pitch, taps, out);
    }
    store_tile(out, finite, tile, dx + image * C + blockIdx.y * SLICE);
}
