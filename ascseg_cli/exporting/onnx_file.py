"""Writes an ONNX file: from pixels to mask in one graph, with everything that must travel with it as metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ascseg_cli import __version__
from ascseg_cli.exporting import network_graph, pixels_graph
from ascseg_cli.exporting.graph import Graph, Precision
from ascseg_cli.exporting.layers import Tensors
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.metadata import KEY
from ascseg_cli.whole_file import write_whole

if TYPE_CHECKING:
    import onnx

EXPORT_KEY = "ascseg_export"
FORMAT = 1
OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True)
class Form:
    """What kind of file is wanted.

    opset      of ONNX
    precision  float32, or float16: the scan, resizing and the result stay float32
    static     height and width of the only images that the file will take; None: any
    core_only  the network alone: `image` is its prepared input, (b, 3, h, w) float32
    """

    opset: int = OPSET
    precision: Precision = "float32"
    static: tuple[int, int] | None = None
    core_only: bool = False


def write(checkpoint: Checkpoint, path: Path, form: Form = Form()) -> None:
    """Write the file whole or not at all. Raises OutputError."""
    write_whole(path, model(checkpoint, form).SerializeToString(deterministic=True))


def model(checkpoint: Checkpoint, form: Form = Form()) -> onnx.ModelProto:
    """The model with its metadata."""
    from onnx import checker, helper

    graph = _graph(checkpoint, form)
    made = helper.make_model(
        graph,
        producer_name="ascseg",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", form.opset)],
        ir_version=IR_VERSION,
        doc_string="For research. Not a medical device.",
    )
    helper.set_model_props(made, metadata(checkpoint, form))
    checker.check_model(made, full_check=True)
    return made


def metadata(checkpoint: Checkpoint, form: Form) -> dict[str, str]:
    """The texts inside the file."""
    export = {
        "format": FORMAT,
        "weights_sha256": checkpoint.sha256,
        "precision": form.precision,
        "opset": form.opset,
        "core_only": form.core_only,
        "static": form.static,
        "version": __version__,
    }
    return {KEY: checkpoint.metadata.to_json(), EXPORT_KEY: json.dumps(export)}


def _graph(checkpoint: Checkpoint, form: Form) -> Any:
    from onnx import TensorProto, helper

    g = Graph(form.precision)
    what = checkpoint.metadata
    x = (
        pixels_graph.padded(g, "image")
        if form.core_only
        else pixels_graph.prepared(g, "image", what.preprocessing)
    )
    x = x if form.precision == "float32" else g.cast(x, form.precision)
    p = network_graph.probability(g, x, Tensors(checkpoint.tensors), what.channels)
    p = (pixels_graph.cropped if form.core_only else pixels_graph.at_size_of)(g, p, "image")
    g.nodes.append(helper.make_node("Squeeze", [p, g.whole(1)], ["probability"], name="probability"))
    found = g.op("GreaterOrEqual", "probability", g.real(float(np.float32(what.threshold))))
    g.nodes.append(helper.make_node("Cast", [found], ["mask"], name="mask", to=TensorProto.UINT8))
    h, w = form.static or ("height", "width")
    kind, shape = (
        (TensorProto.FLOAT, ["batch", 3, h, w]) if form.core_only else (TensorProto.UINT8, ["batch", h, w, 3])
    )
    return g.built(
        what.name,
        [helper.make_tensor_value_info("image", kind, shape)],
        [
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", h, w]),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", h, w]),
        ],
    )
