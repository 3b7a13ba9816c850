"""An older weights file learns which images it was trained on; its numbers and all else it says stay the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import Index, decode, fingerprint
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import DataError
from ascseg_cli.network import checkpoint
from ascseg_cli.training.remember import remember
from ascseg_cli.weights.store import locate

PRACTICE = Path(__file__).resolve().parents[2] / "examples" / "practice"


def _trained_on(weights: Path, file: Path, sha256: str) -> Path:
    old = checkpoint.read(weights)
    checkpoint.write(file, old.tensors, old.metadata.model_copy(update={"split": {"sha256": sha256}}))
    return file


def test_the_hashes_are_those_of_the_training_part(drawn_weights: Path, tmp_path: Path) -> None:
    split = open_dataset(PRACTICE).split()
    file = _trained_on(drawn_weights, tmp_path / "w.safetensors", split.sha256())
    before = checkpoint.read(file)
    assert remember(file, PRACTICE) == len(split.train)
    after = checkpoint.read(file)
    assert after.metadata.training_images
    assert set(decode(after.metadata.training_images)) == {fingerprint(read_pixels(p.image)) for p in split.train}
    assert after.metadata.model_copy(update={"training_images": None}) == before.metadata
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name], tensor)


def test_another_folder_is_refused(drawn_weights: Path, tmp_path: Path) -> None:
    file = _trained_on(drawn_weights, tmp_path / "w.safetensors", open_dataset(PRACTICE).split().sha256())
    shutil.copytree(PRACTICE, tmp_path / "practice")
    (tmp_path / "practice" / "images" / "spot_3.jpg").unlink()
    before = file.read_bytes()
    with pytest.raises(DataError, match="was trained with the split"):
        remember(file, tmp_path / "practice")
    assert file.read_bytes() == before


@pytest.mark.parametrize(("name", "folder"), [("kvasir", "Kvasir"), ("busi", "BUSI")])
def test_shipped_weights_know_their_training_images(shared_data: Path, name: str, folder: str) -> None:
    """Every tenth training image is recognised."""
    text = checkpoint.read_metadata(locate(name, None)).training_images
    assert text
    index = Index(decode(text))
    split = open_dataset(shared_data / folder).split()
    assert len(index.stored) == len(split.train)
    marks = [fingerprint(read_pixels(pair.image)) for pair in split.train[::10]]
    assert {match.query for match in index.matches(marks) if match.exact} == set(range(len(marks)))
