"""What an exported file says of itself, read without ONNX's libraries, against files that these wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.errors import WeightsError
from ascseg_cli.inference.engine import read_metadata
from ascseg_cli.network import exported
from ascseg_cli.weights.checking import check_weights

onnx = pytest.importorskip("onnx", reason="the files are made with onnx")
Draw = Callable[..., Path]


def test_metadata_and_record_are_those_that_onnx_wrote(draw: Draw) -> None:
    path = draw(record={"precision": "float16", "static": [40, 60], "version": "9.9", "later": "kept"})
    got = exported.read(path)
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(got.metadata.to_json()) == json.loads(props["ascseg"])
    assert got.record.model_dump(mode="json", exclude_defaults=True) == {
        key: value for key, value in json.loads(props["ascseg_export"]).items() if key != "format"
    }
    assert (got.record.precision, got.record.static, got.record.core_only) == ("float16", (40, 60), False)
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert got.content == path.read_bytes()
    assert read_metadata(path) == got.metadata


def test_the_hash_is_of_graph_and_functions(draw: Draw) -> None:
    path = draw(hashed=True)
    graph = onnx.load(path).graph.SerializeToString()
    assert exported.read(path).record.graph_sha256 == hashlib.sha256(graph).hexdigest()
    whole = onnx.load(path)
    function = onnx.helper.make_function("ascseg", "Twice", ["x"], ["y"], [], [])
    whole.functions.append(function)
    kept = exported.with_hash({prop.key: prop.value for prop in whole.metadata_props}, whole.SerializeToString())
    both = hashlib.sha256(graph + function.SerializeToString()).hexdigest()
    assert json.loads(kept["ascseg_export"])["graph_sha256"] == both


def test_any_changed_byte_of_the_graph_is_noticed(draw: Draw) -> None:
    path = draw(hashed=True)
    assert exported.read(path).record.graph_sha256
    content = path.read_bytes()
    graph = onnx.load(path).graph.SerializeToString()
    start = content.index(graph)
    for place in np.random.default_rng(0).integers(start, start + len(graph), 60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged or was altered"):
            exported.read(path)


def test_any_changed_byte_of_the_metadata_is_noticed(draw: Draw) -> None:
    """A threshold of .4 that became .5 would be a sound file with other masks."""
    path = draw(hashed=True)
    content = path.read_bytes()
    text = next(prop.value for prop in onnx.load(path).metadata_props if prop.key == "ascseg").encode()
    start, noticed = content.index(text), 0
    for place in range(start, start + len(text)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WeightsError) as caught:
            exported.read(path)
        noticed += "its metadata isn't what was exported" in caught.value.message  # else it was no JSON of ours
    assert noticed > 50


def test_a_truncated_file_is_refused_wherever_it_ends(draw: Draw) -> None:
    path = draw(hashed=True)
    content = path.read_bytes()
    for length in {0, 1, 2, *np.linspace(3, len(content) - 1, 50).astype(int).tolist()}:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"no ONNX file|without ascseg's metadata"):
            exported.read(path)


def test_noise_and_mutations_never_raise_anything_else(draw: Draw) -> None:
    path = draw(hashed=True)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    read = 0
    for _ in range(300):
        damaged = bytearray(content if rng.random() < 0.8 else rng.bytes(200))
        for place in rng.integers(0, len(damaged), rng.integers(1, 8)).tolist():
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(WeightsError):
            exported.read(path)
            read += 1
    assert read < 50


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"props": {}}, "without ascseg's metadata"),
        ({"props": {"ascseg": "{}"}}, "without ascseg's metadata"),
        ({"props": {"ascseg": "{}", "ascseg_export": "{}"}}, "the metadata is not of format 1"),
        ({"record": {"format": 2}}, "the export's format is 2; this release reads format 1"),
        ({"record": {"weights_sha256": "none"}}, "ascseg_export is damaged: weights_sha256"),
        ({"record": {"precision": "int8"}}, "ascseg_export is damaged: precision"),
    ],
)
def test_files_that_are_not_ours_are_named(draw: Draw, how: dict[str, object], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        exported.read(draw(**how))


def test_other_files_are_named(drawn_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(WeightsError, match="no such weights file"):
        exported.read(path)
    path.write_bytes(drawn_weights.read_bytes())
    with pytest.raises(WeightsError, match="no ONNX file") as caught:
        exported.read(path)
    assert "rename it" in caught.value.hint
    with open(path, "wb") as file:
        file.truncate(2**27)
    with pytest.raises(WeightsError, match="at most"):
        exported.read(path)


def test_verify_says_what_a_file_was_made_from(draw: Draw) -> None:
    path = draw(hashed=True)
    (check,) = check_weights([str(path)])
    assert check.good
    assert check.words.startswith(f"{path}: whole; exported from stand-in, weights of sha256 000")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Sigmoid", b"Softmax"))
    (check,) = check_weights([str(path)])
    assert not check.good
    assert "damaged or was altered" in check.words
    (check,) = check_weights([str(draw("unhashed.onnx"))])
    assert "it keeps no hash of its graph" in check.words


@pytest.mark.parametrize(
    ("name", "hint"), [("model.bin", r"under the name \*\.onnx"), ("model.pt2", "torch.export")]
)
def test_exports_under_other_names_are_told_apart(draw: Draw, tmp_path: Path, name: str, hint: str) -> None:
    path = draw().rename(tmp_path / name)
    with pytest.raises(WeightsError, match="no safetensors file") as caught:
        read_metadata(path)
    assert re.search(hint, caught.value.hint)


def test_the_name_decides() -> None:
    assert [exported.is_exported(Path(name)) for name in ("a.onnx", "b.ONNX", "c.onnx.safetensors")] == [1, 1, 0]
