"""From bytes to the network's input, and from its probability back to the picture's size, as ONNX nodes.

The same rules as `data/preprocess.py`, which says what they are.
"""

from __future__ import annotations

import numpy as np

from ascseg_cli.graphs.to_onnx.graph import Graph
from ascseg_cli.network.metadata import Preprocessing


def prepared(g: Graph, image: str, how: Preprocessing) -> str:
    """image (b, h, w, 3) uint8 -> (b, 3, rows, columns) float32."""
    pixels = g.cast(g.op("Transpose", image, perm=[0, 3, 1, 2]), "float32")
    if how.rule == "squeeze_antialias":
        scaled = _resized(g, pixels, g.whole(*how.size), antialias=1)
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (how.mean, how.std))
        shifted = g.op("Sub", scaled, g.exact("mean", 255 * mean))
        return g.op("Div", shifted, g.exact("std", 255 * std))
    axes = g.whole(1, 2, 3)
    low, high = (g.op(kind, pixels, axes) for kind in ("ReduceMin", "ReduceMax"))
    span = g.op("Max", g.op("Sub", high, low), g.real(1.0))  # 1 where a picture has one value: then all is 0
    factor = g.op("Div", g.real(255.0), span)
    return g.op("Mul", g.op("Sub", _resized(g, pixels, g.whole(*how.size)), low), factor)


def at_size_of(g: Graph, probability: str, image: str) -> str:
    """probability (b, 1, rows, columns) -> (b, 1, h, w) of image (b, h, w, 3)."""
    return _resized(g, probability, g.op("Shape", image, start=1, end=3))


def padded(g: Graph, image: str) -> str:
    """image (b, 3, h, w) float32 -> the same, its last row and column repeated up to multiples of 16."""
    size = g.op("Shape", image, start=2, end=4)
    lack = g.op("Mod", g.op("Neg", size), g.whole(16))
    return g.op("Pad", image, g.op("Concat", g.whole(0, 0, 0, 0, 0, 0), lack, axis=0), mode="edge")


def cropped(g: Graph, probability: str, image: str) -> str:
    """The part of probability (b, 1, rows, columns) where image (b, 3, h, w) lies."""
    size = g.op("Shape", image, start=2, end=4)
    return g.op("Slice", probability, g.whole(0, 0), size, g.whole(2, 3))


def _resized(g: Graph, x: str, size: str, antialias: int = 0) -> str:
    """x (b, c, h, w) -> (b, c, *size): bilinear, half-pixel centres."""
    mode = {
        "mode": "linear",
        "coordinate_transformation_mode": "half_pixel",
        "antialias": antialias,
        "exclude_outside": antialias,
    }
    return g.op("Resize", x, "", "", size, axes=[2, 3], **mode)
