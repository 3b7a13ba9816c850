"""The sizes that CPU kernels and those who launch them must agree on; without numba, which takes long to load."""

WIDTH = 16  # float32 in a Lanes value, unless its name says 8
LANES = 8  # channels in a vector of the deformable convolution: what the default network's first stage has
PIXELS = 64  # a block of the deformable convolution, whose places, 14 KB, stay in the first-level cache
ROWS = 8  # of a band, the share of an image that is one task of a chain: even, for the pooling by 2
CHUNK = 64  # tokens of a scan, a multiple of WIDTH: a chunk's scratch, 30 KB, stays in the first-level cache
