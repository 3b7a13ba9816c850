// Which parts of the image send samples far. The gradient of x is gathered by tiles: a tile looks at the pixels
// around it, up to MARGIN away, and knows from its mark where else a sample may come from.
//
// marks[0]                       not zero if the gradient is to be NaN as a whole
// marks[1 + image · tiles + i]   for tile i, one bit for each group of windows, in row-major order
#pragma once
#include "device.cuh"

typedef unsigned long long Mark;

constexpr int WINDOW = TILE + 2 * MARGIN;  // pixels a side

struct Tiling {
    int columns, tiles;           // tiles in a row, and in the image
    int window_columns, windows;  // an image is also cut into windows of WINDOW × WINDOW pixels
    int group;                    // windows that share a bit
};

DEVICE Tiling tiling_of(int h, int w) {
    const int columns = ceil_div(w, TILE), window_columns = ceil_div(w, WINDOW);
    const int windows = ceil_div(h, WINDOW) * window_columns;
    return {columns, ceil_div(h, TILE) * columns, window_columns, windows, ceil_div(windows, 64)};
}
