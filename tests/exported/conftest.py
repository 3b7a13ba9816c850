"""A stand-in for exported files: a graph of a few nodes whose answer numpy knows, with our metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ascseg_cli.network import exported
from ascseg_cli.network.metadata import Metadata, Preprocessing

METADATA = Metadata(
    name="stand-in",
    variant="tiny",
    channels=(8, 16, 24, 32),
    preprocessing=Preprocessing(rule="squeeze_antialias", size=(32, 48), mean=(0.5,) * 3, std=(0.25,) * 3),
    threshold=0.4,
)
RECORD = {"format": 1, "weights_sha256": "0" * 64, "opset": 20}
SLOPE = 0.02


def answer(pixels: np.ndarray) -> np.ndarray:
    """What the stand-in finds in (h, w, 3) uint8, as (h, w) float64: green, and more so further to the right."""
    green = (pixels[:, :, 1].astype(np.float64) - 128) / 32
    return 1 / (1 + np.exp(-(green + SLOPE * np.arange(1, pixels.shape[1] + 1))))


def texts(record: dict[str, Any]) -> dict[str, str]:
    return {"ascseg": METADATA.to_json(), "ascseg_export": json.dumps(record)}


def model(
    *,
    record: dict[str, Any] | None = None,
    props: dict[str, str] | None = None,
    kind: str = "uint8",
    plane: int = 1,
) -> Any:
    """The ONNX model. record: what differs in ours; props: all of the metadata instead; kind: of `image`.

    plane: the colour that is looked at; above 2 the graph fails when it runs.
    """
    helper = pytest.importorskip("onnx.helper", reason="the stand-in files are made with onnx")
    from onnx import TensorProto, numpy_helper

    record = {**RECORD, **(record or {})}
    core = record.get("core_only", False)
    made_of = TensorProto.FLOAT if core else getattr(TensorProto, kind.upper())
    h, w = record.get("static") or ("height", "width")
    shape = ["batch", 3, h, w] if core else ["batch", h, w, 3]
    constants = {
        "green": np.int64(plane), "middle": np.float32(0 if core else 128), "scale": np.float32(1 if core else 32),
        "zero": np.float32(0), "columns": np.int64(2), "slope": np.float32(SLOPE),
        "threshold": np.float32(METADATA.threshold),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        node("Gather", ["x", "green"], ["plane"], axis=1 if core else 3),
        node("Sub", ["plane", "middle"], ["centred"]),
        node("Div", ["centred", "scale"], ["scaled"]),
        node("Mul", ["scaled", "zero"], ["nothing"]),
        node("Exp", ["nothing"], ["ones"]),
        node("CumSum", ["ones", "columns"], ["place"]),
        node("Mul", ["place", "slope"], ["rise"]),
        node("Add", ["scaled", "rise"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
        node("GreaterOrEqual", ["probability", "threshold"], ["found"]),
        node("Cast", ["found"], ["mask"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("image", made_of, shape)],
        [
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", h, w]),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", h, w]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, texts(record) if props is None else props)
    return made


Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes a stand-in file; hashed: with the graph's hash in the record, as the exporter writes it."""

    def write(name: str = "model.onnx", *, hashed: bool = False, **how: Any) -> Path:
        made = model(**how)
        if hashed:
            kept = {prop.key: prop.value for prop in made.metadata_props}
            helper = pytest.importorskip("onnx.helper")
            helper.set_model_props(made, exported.with_hash(kept, made.SerializeToString()))
        path = tmp_path / name
        path.write_bytes(made.SerializeToString())
        return path

    return write


@pytest.fixture
def stand_in() -> Callable[[np.ndarray], np.ndarray]:
    return answer


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Four pictures (h, w, 3) uint8 of several sizes."""
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((40, 60), (33, 91), (64, 64), (40, 60))]


@pytest.fixture
def photos(tmp_path: Path, pictures: list[np.ndarray]) -> Path:
    """Four pictures in two folders, and a damaged one."""
    folder = tmp_path / "photos"
    (folder / "환자 1").mkdir(parents=True)
    for name, pixels in zip(("a.png", "b.png", "환자 1/사진.png", "환자 1/a.png"), pictures):
        Image.fromarray(pixels).save(folder / name)
    (folder / "z_cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    return folder
