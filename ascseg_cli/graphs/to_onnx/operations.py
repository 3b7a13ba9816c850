"""The operations of `description` as ONNX nodes; a value is the name of what a node gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ascseg_cli.graphs.description import GROUPS
from ascseg_cli.graphs.folding import EPSILON, Affine, Kernel
from ascseg_cli.graphs.to_onnx.graph import Graph
from ascseg_cli.graphs.to_onnx.scan import selective_scan


class OnnxOperations:
    """See `description.Operations`. Weights and maps have the graph's precision, rows are float32."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def conv(self, x: str, k: Kernel, name: str, *, groups: int = 1, dilation: int = 1) -> str:
        weight, bias = (self.graph.weight(f"{name}.{n}", v) for n, v in vars(k).items())
        pads = [dilation * (k.size - 1) // 2] * 4
        shape = {"kernel_shape": [k.size] * 2, "dilations": [dilation] * 2}
        return self.graph.op("Conv", x, weight, bias, pads=pads, group=groups, **shape)

    def scaled(self, x: str, norm: Affine, name: str) -> str:
        scale, shift = (self.graph.weight(f"{name}.{n}", v[:, None, None]) for n, v in vars(norm).items())
        return self.add(self.multiply(x, scale), shift)

    def standardised(self, x: str) -> str:
        op, channels = self.graph.op, self.graph.whole(1)
        centred = op("Sub", x, op("ReduceMean", x, channels))
        variance = op("ReduceMean", self.multiply(centred, centred), channels)
        epsilon = self.graph.real(EPSILON, self.graph.precision)
        return op("Div", centred, op("Sqrt", self.add(variance, epsilon)))

    def add(self, a: str, b: str) -> str:
        return self.graph.op("Add", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self.graph.op("Mul", a, b)

    def relu(self, x: str) -> str:
        return self.graph.op("Relu", x)

    def gelu(self, x: str) -> str:
        return self.graph.op("Gelu", x, approximate="none")

    def sigmoid(self, x: str) -> str:
        return self.graph.op("Sigmoid", x)

    def softplus(self, x: str) -> str:
        return self.graph.op("Softplus", x)

    def double(self, x: str) -> str:
        mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        return self.graph.op("Resize", x, "", self.graph.reals(1, 1, 2, 2), **mode)

    def halve(self, x: str) -> str:
        return self.graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def highest(self, x: str) -> str:
        return self.graph.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)

    def overall(self, x: str) -> str:
        return self.add(self.graph.op("GlobalMaxPool", x), self.graph.op("GlobalAveragePool", x))

    def joined(self, xs: Sequence[str]) -> str:
        return self.graph.op("Concat", *xs, axis=1)

    def deformed(self, x: str, offset: str, weight: np.ndarray, name: str) -> str:
        shape = {"kernel_shape": [3, 3], "pads": [1] * 4, "group": len(weight), "offset_group": 1}
        return self.graph.op("DeformConv", x, self.graph.weight(name, weight), offset, **shape)

    def to_rows(self, x: str, d: int) -> str:
        g = self.graph
        count = self.multiply(g.op("Shape", x, start=0, end=1), g.whole(GROUPS))
        rows = g.op("Reshape", x, g.op("Concat", count, g.whole(d, -1), axis=0))
        return rows if g.precision == "float32" else g.cast(rows, "float32")

    def to_map(self, rows: str, like: str) -> str:
        g = self.graph
        rows = rows if g.precision == "float32" else g.cast(rows, g.precision)
        return g.op("Reshape", rows, g.op("Shape", like))

    def linear(self, rows: str, weight: np.ndarray, name: str) -> str:
        return self.graph.op("MatMul", self.graph.exact(name, weight), rows)

    def halves(self, rows: str) -> tuple[str, str]:
        first, second = self.graph.split("Split", rows, outputs=2, axis=1, num_outputs=2)
        return first, second

    def causal(self, rows: str, weight: np.ndarray, bias: np.ndarray, name: str) -> str:
        taps = (self.graph.exact(f"{name}.{n}", v) for n, v in (("weight", weight), ("bias", bias)))
        return self.graph.op("Conv", rows, *taps, kernel_shape=[4], pads=[3, 0], group=len(weight))

    def along(self, rows: str, factor: np.ndarray, summand: np.ndarray, name: str) -> str:
        if (factor != 1).any():
            rows = self.multiply(rows, self.graph.exact(f"{name}.factor", factor[:, None]))
        if summand.any():
            rows = self.add(rows, self.graph.exact(f"{name}.summand", summand[:, None]))
        return rows

    def selective_scan(self, x: str, delta: str, A: np.ndarray, B: np.ndarray, C: np.ndarray, name: str) -> str:
        return selective_scan(self.graph, x, delta, A, B, C, name)
