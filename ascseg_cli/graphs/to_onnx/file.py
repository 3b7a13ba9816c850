"""Writes an ONNX file: from pixels to mask in one graph, with everything that must travel with it as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli import __version__
from ascseg_cli.graphs import description
from ascseg_cli.graphs.folding import Tensors
from ascseg_cli.graphs.form import Form
from ascseg_cli.graphs.to_onnx import pixels
from ascseg_cli.graphs.to_onnx.graph import Graph
from ascseg_cli.graphs.to_onnx.operations import OnnxOperations
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.exported import with_hash

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # the newest that onnxruntime 1.25 and its web build read


def content(checkpoint: Checkpoint, form: Form, texts: Mapping[str, str]) -> bytes:
    """The bytes of the file, the same for the same arguments, with `texts` as its metadata."""
    from onnx import checker, helper

    model = helper.make_model(
        _graph(checkpoint, form),
        producer_name="ascseg",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", form.opset)],
        ir_version=IR_VERSION,
        doc_string="For research. Not a medical device.",
    )
    checker.check_model(model, full_check=True)
    helper.set_model_props(model, with_hash(texts, model.SerializeToString(deterministic=True)))
    return model.SerializeToString(deterministic=True)


def _graph(checkpoint: Checkpoint, form: Form) -> onnx.GraphProto:
    from onnx import TensorProto, helper

    g = Graph(form.precision)
    p = _probability(g, checkpoint, form)
    g.nodes.append(helper.make_node("Squeeze", [p, g.whole(1)], ["probability"], name="probability"))
    found = g.op("GreaterOrEqual", "probability", g.real(float(np.float32(checkpoint.metadata.threshold))))
    g.nodes.append(helper.make_node("Cast", [found], ["mask"], name="mask", to=TensorProto.UINT8))
    h, w = form.static or ("height", "width")
    image = ["batch", 3, h, w] if form.core_only else ["batch", h, w, 3]
    return g.built(
        checkpoint.metadata.name,
        [_value("image", TensorProto.FLOAT if form.core_only else TensorProto.UINT8, image)],
        [
            _value("probability", TensorProto.FLOAT, ["batch", h, w]),
            _value("mask", TensorProto.UINT8, ["batch", h, w]),
        ],
    )


def _probability(g: Graph, checkpoint: Checkpoint, form: Form) -> str:
    """(b, 1, h, w) float32 at the image's size."""
    what = checkpoint.metadata
    x = pixels.padded(g, "image") if form.core_only else pixels.prepared(g, "image", what.preprocessing)
    half = form.precision != "float32"
    x = g.cast(x, form.precision) if half else x
    z = description.logit(OnnxOperations(g), x, Tensors(checkpoint.tensors), what.channels)
    p = g.op("Sigmoid", g.cast(z, "float32") if half else z)
    return (pixels.cropped if form.core_only else pixels.at_size_of)(g, p, "image")


def _value(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape)
