"""The weights file: read back as written, and refused in one line when anything about it is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from ascseg_cli.errors import OutputError, UsageError, WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import KEY, Metadata, Preprocessing
from ascseg_cli.network.shapes import expected_shapes

CHANNELS = (4, 8, 4, 8)


def metadata(**changes: Any) -> Metadata:
    preprocessing = Preprocessing(rule="squeeze_antialias", size=(32, 48), mean=(0.5,) * 3, std=(0.25,) * 3)
    fields: dict[str, Any] = {
        "name": "drawn", "variant": "custom", "channels": CHANNELS, "preprocessing": preprocessing
    }  # fmt: skip
    return Metadata(**(fields | changes))


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {n: draw.normal(size=s).astype(np.float32) for n, s in expected_shapes(CHANNELS).items()}


@pytest.fixture
def written(tmp_path: Path, tensors: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "weights.safetensors"
    checkpoint.write(path, tensors, metadata())
    return path


def edit_header(path: Path, change: Any) -> Path:
    """The same file with its header passed through `change`."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


def test_what_was_written_is_read_back(written: Path, tensors: dict[str, np.ndarray]) -> None:
    content = checkpoint.read(written)
    assert content.metadata == metadata()
    assert content.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert set(content.tensors) == set(tensors)
    assert all(np.array_equal(content.tensors[name], tensor) for name, tensor in tensors.items())


def test_another_reader_agrees(written: Path, tensors: dict[str, np.ndarray]) -> None:
    with safe_open(written, "np") as file:
        assert json.loads(file.metadata()[KEY])["format"] == 1
        assert all(np.array_equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    shuffled = dict(reversed(tensors.items()))
    first = checkpoint.write(tmp_path / "a", tensors, metadata())
    assert checkpoint.write(tmp_path / "b", shuffled, metadata()) == first


def test_an_existing_file_stays_unless_told(written: Path, tensors: dict[str, np.ndarray]) -> None:
    before = written.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        checkpoint.write(written, tensors, metadata(name="other"), overwrite=False)
    assert written.read_bytes() == before


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        checkpoint.write(tmp_path / "w.safetensors", tensors, metadata())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 5000, -4, -1])
def test_a_truncated_file_is_refused(written: Path, kept: int) -> None:
    written.write_bytes(written.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"truncated|damaged"):
        checkpoint.read(written)


def test_trailing_bytes_are_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b"more")
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.read(written)


def test_an_absurd_header_length_is_refused_before_allocation(written: Path) -> None:
    written.write_bytes(struct.pack("<Q", 2**62) + written.read_bytes()[8:])
    with pytest.raises(WeightsError, match="no safetensors file"):
        checkpoint.read(written)


def test_an_oversized_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # sparse: takes no disk
    with pytest.raises(WeightsError, match="at most"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.pop("final.ph1.pro.0.bias") and None, r"damaged|missing"),
        (lambda h: h["final.ph1.pro.0.bias"].update(shape=[2**40, 2**40]), "damaged"),
        (lambda h: h["final.ph1.pro.0.bias"].update(shape=[-1]), "damaged"),
        (lambda h: h["final.ph1.pro.0.bias"].update(shape=[1, 1]), "another shape"),
        (lambda h: h["final.ph1.pro.0.bias"].update(dtype="F64"), "weights are F32"),
        (lambda h: h["final.ph1.pro.0.bias"].update(data_offsets=[0, 4]), "damaged"),
        (lambda h: h.update(unknown=h.pop("final.ph1.pro.0.bias")), r"1 missing .* 1 unknown"),
        (lambda h: h.pop("__metadata__") and None, "without ascseg's metadata"),
        (lambda h: h["__metadata__"].update(ascseg="{"), "metadata"),
        (lambda h: [1], "damaged"),
    ],
)
def test_a_damaged_header_is_one_clear_line(written: Path, change: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        checkpoint.read(edit_header(written, change))
    assert "\n" not in caught.value.message


def test_values_that_are_not_finite_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    tensors["final.ph1.pro.0.bias"][0] = np.nan
    checkpoint.write(tmp_path / "w", tensors, metadata())
    with pytest.raises(WeightsError, match="finite"):
        checkpoint.read(tmp_path / "w")


def test_tensors_of_another_network_are_not_written(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    del tensors["final.ph1.pro.0.bias"]
    with pytest.raises(WeightsError, match="1 missing"):
        checkpoint.write(tmp_path / "w", tensors, metadata())
    assert list(tmp_path.iterdir()) == []


def test_a_pytorch_file_is_told_how_to_come_in(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(WeightsError) as caught:
        checkpoint.read(path)
    assert "ascseg weights import" in caught.value.hint


def test_a_foreign_safetensors_file_is_told_how_to_come_in(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "f.safetensors")
    with pytest.raises(WeightsError, match="without ascseg's metadata") as caught:
        checkpoint.read(tmp_path / "f.safetensors")
    assert "ascseg weights import" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"format": 2}, "format is 2; this release reads format 1"),
        ({"channels": [8, 16, 24, 30]}, "multiples of 4"),
        ({"variant": "tiny"}, "are 'custom'"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "NaN"}, "threshold"),
        ({"preprocessing": {"rule": "crop", "size": [32, 32]}}, "rule"),
        ({"preprocessing": {"rule": "squeeze_antialias", "size": [30, 32]}}, "multiples of 16"),
        ({"preprocessing": {"rule": "squeeze_antialias", "size": [32, 32], "std": [0, 1, 1]}}, "positive"),
    ],
)
def test_wrong_metadata_names_the_field(text: dict[str, Any], words: str) -> None:
    fields = json.loads(metadata().to_json()) | text
    with pytest.raises(WeightsError, match=words):
        Metadata.from_json(json.dumps(fields))


def test_unknown_keys_survive(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    fields = json.loads(metadata().to_json()) | {"temperature": 1.5}
    checkpoint.write(tmp_path / "w", tensors, Metadata.from_json(json.dumps(fields)))
    assert json.loads(checkpoint.read_metadata(tmp_path / "w").to_json())["temperature"] == 1.5
