"""The ONNX file as another runtime sees it: against the original computation, and at any batch and size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from ascseg_cli.graphs.form import Form, texts
from ascseg_cli.graphs.to_onnx import file
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.tta import predict_probability
from ascseg_cli.network import exported
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing

from .conftest import run_model


def content(checkpoint: Checkpoint, form: Form = Form()) -> bytes:  # noqa: B008
    return file.content(checkpoint, form, texts(checkpoint, form))


@pytest.fixture(scope="module")
def original(golden: Path) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    """The weights of the original computation as a checkpoint, and all that the golden file holds."""
    every = load_file(golden)
    weights = {name.removeprefix("weights."): t for name, t in every.items() if name.startswith("weights.")}
    how = Preprocessing(rule="stretch_bilinear", size=(32, 48))
    metadata = Metadata(name="golden", variant="tiny", channels=(8, 16, 24, 32), preprocessing=how)
    return Checkpoint(metadata, weights, "0" * 64), every


@pytest.mark.parametrize("opset", [20, 22, 23])
def test_the_network_alone_gives_the_original_s_probabilities(
    original: tuple[Checkpoint, dict[str, np.ndarray]], opset: int
) -> None:
    checkpoint, every = original
    (got,) = run_model(content(checkpoint, Form(opset=opset, core_only=True)), "probability", image=every["input"])
    assert np.abs(got - every["eval.probability.0"][:, 0]).max() < 1e-6


def test_a_wrong_weight_is_seen_against_the_original(original: tuple[Checkpoint, dict[str, np.ndarray]]) -> None:
    """B and C of the scan, which the result feels least, exchanged: the test above must not pass them."""
    checkpoint, every = original
    name = "encoder.eb1.pm.mamba.x_proj.weight"
    turned = checkpoint.tensors[name][np.r_[0:1, 17:33, 1:17]]
    changed = replace(checkpoint, tensors=checkpoint.tensors | {name: turned})
    (got,) = run_model(content(changed, Form(core_only=True)), "probability", image=every["input"])
    assert np.abs(got - every["eval.probability.0"][:, 0]).max() > 2e-6


@pytest.mark.parametrize("shape", [(1, 32, 48), (3, 61, 83), (2, 1, 1), (1, 200, 7)])
def test_any_batch_and_size_gives_predict_s_results(
    small: Checkpoint, drawn_weights: Path, shape: tuple[int, ...]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    probability, mask = run_model(content(small), "probability", "mask", image=images)
    engine = open_engine(drawn_weights, device="cpu")
    want = np.stack([predict_probability(engine, image) for image in images])
    assert probability.dtype == np.float32
    assert np.abs(probability - want).max() < 2e-5
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, probability >= np.float32(small.metadata.threshold))


def test_float16_numbers_are_inside_and_cost_little(small: Checkpoint) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 61, 83, 3), dtype=np.uint8)
    half, full = (content(small, Form(precision=precision)) for precision in ("float16", "float32"))
    kinds = {weight.data_type for weight in onnx.load_from_string(half).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert len(half) < 0.95 * len(full)
    (got,), (want,) = (run_model(model, "probability", image=images) for model in (half, full))
    assert 0 < np.abs(got - want).max() < 0.02


def test_the_file_says_what_it_is(small: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(content(small, Form(static=(61, 83))))
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(said["ascseg"]) == json.loads(small.metadata.to_json())
    record = json.loads(said["ascseg_export"])
    assert record["weights_sha256"] == small.sha256
    assert (record["precision"], record["opset"], record["static"]) == ("float32", 20, [61, 83])
    assert exported.read(path).record.static == (61, 83)
    with pytest.raises(Exception, match="61"):
        run_model(path.read_bytes(), "mask", image=np.zeros((1, 60, 83, 3), np.uint8))


def test_the_same_weights_give_the_same_bytes(small: Checkpoint) -> None:
    assert content(small) == content(small)


def test_only_standard_operators_are_inside(small: Checkpoint) -> None:
    model = onnx.load_from_string(content(small))
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions
