"""The numbers by which a pass of a chain says what it does, on every device."""

SAME, DOUBLE, HALVE = range(3)  # resizing
ALONE, DENSE, GROUPED, MAXIMUM = range(4)  # what happens over neighbours
POINTWISE, AFFINE, NORM, RELU, GELU, SIGMOID, ADD, GATE, SOFT_GATE, BOOST = range(10)  # within a pixel
