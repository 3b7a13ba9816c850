"""A small graph of a few of our nodes, as a function of arrays; and a checkpoint of the golden weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from ascseg_cli.graphs.to_onnx.graph import Graph
from ascseg_cli.network.checkpoint import Checkpoint, read

Build = Callable[..., str]


def run_model(content: bytes, *outputs: str, **inputs: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime makes of a model's bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(list(outputs), inputs)]


def run_nodes(build: Build, **inputs: np.ndarray) -> np.ndarray:
    """The value that `build(graph, *names)` gives, for these inputs."""
    g = Graph()
    g.nodes.append(helper.make_node("Identity", [build(g, *inputs)], ["out"]))
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim)
        for name, v in inputs.items()
    ]
    graph = g.built("nodes", given, [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return run_model(model.SerializeToString(), "out", **inputs)[0]


@pytest.fixture(scope="session")
def small(drawn_weights: Path) -> Checkpoint:
    """A small network with random numbers that sees 32×48 px."""
    return read(drawn_weights)
