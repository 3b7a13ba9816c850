// Where the taps of a deformable 3×3 convolution fall.
#pragma once
#include "device.cuh"

constexpr int TAPS = 9;

// A place between four pixels: the upper left one, how far below and right of it, and which of the two rows and
// columns lie in the image. The pixel is (-2, -2) where none does; so no offset, however large or NaN, is an index.
struct Sample { int row, column; float down, right; bool above, below, before, after; };

DEVICE Sample sample_at(float row, float column, int h, int w) {
    const float top = floorf(row), left = floorf(column);
    const bool near = top >= -1.0f && top < float(h) && left >= -1.0f && left < float(w);
    Sample s;
    s.row = near ? int(top) : -2;
    s.column = near ? int(left) : -2;
    s.down = row - top;
    s.right = column - left;
    s.above = unsigned(s.row) < unsigned(h);
    s.below = unsigned(s.row + 1) < unsigned(h);
    s.before = unsigned(s.column) < unsigned(w);
    s.after = unsigned(s.column + 1) < unsigned(w);
    return s;
}

// The sample of a tap of the pixel at (row, column); the tap's offsets are `down` and `right`.
DEVICE Sample sample_of(int tap, int row, int column, float down, float right, int h, int w) {
    return sample_at(float(row + tap / 3 - 1) + down, float(column + tap % 3 - 1) + right, h, w);
}
