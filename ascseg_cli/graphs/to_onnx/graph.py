"""An ONNX graph while it grows: nodes, weights and constants, under the names of the weights file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ascseg_cli.graphs.form import Precision

if TYPE_CHECKING:
    import onnx


class Graph:
    """Values are known by their names, numbered by kind; `op` adds a node and gives the name of what comes out.

    precision  of the weights and of what flows between them
    """

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision = precision
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self._taken: dict[str, int] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.split(kind, *inputs, outputs=1, **attributes)[0]

    def split(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """A node with several outputs."""
        from onnx import helper

        name = self.fresh(kind)
        results = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, results, name=name, **attributes))
        return results

    def weight(self, name: str, values: np.ndarray) -> str:
        """Numbers of the network, in the graph's precision."""
        return self._kept(name, values.astype(self.precision))

    def exact(self, name: str, values: np.ndarray) -> str:
        """Numbers of the network that stay float32 in any precision."""
        return self._kept(name, values.astype(np.float32))

    def whole(self, *values: int) -> str:
        """A list of whole numbers: axes, shapes, pads."""
        return self._kept("whole_" + "_".join(map(str, values)), np.array(values, np.int64))

    def real(self, value: float, dtype: str = "float32") -> str:
        """One number that stands for itself."""
        return self._kept(f"{dtype}_{value!r}", np.array(value, dtype))

    def reals(self, *values: float) -> str:
        """A list of numbers that stand for themselves."""
        return self._kept("reals_" + "_".join(map(str, values)), np.array(values, np.float32))

    def cast(self, x: str, dtype: str) -> str:
        """x in another type."""
        from onnx import helper

        return self.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def body(self) -> Graph:
        """The graph inside a loop; it sees the weights and constants of this one."""
        inner = Graph("float32")
        inner.weights, inner._taken = self.weights, self._taken
        return inner

    def built(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.GraphProto:
        """The graph as a message; inputs and outputs are value infos."""
        from onnx import helper, numpy_helper

        weights = [numpy_helper.from_array(values, key) for key, values in sorted(self.weights.items())]
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializer=weights)

    def _kept(self, name: str, values: np.ndarray) -> str:
        known = self.weights.setdefault(name, values)
        assert np.array_equal(known, values), f"two different weights are called {name}"
        return name

    def fresh(self, kind: str) -> str:
        """A name that nothing has yet."""
        number = self._taken[kind] = self._taken.get(kind, 0) + 1
        return f"{kind}_{number}"
