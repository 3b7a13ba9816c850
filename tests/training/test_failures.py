"""What ends or changes a run is said with its cause: numbers that aren't finite, memory that doesn't suffice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_runs import CPU, TINY, Watcher, train
from PIL import Image

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import DataError, TrainingError
from ascseg_cli.network import checkpoint
from ascseg_cli.training.augment import Augmenter
from ascseg_cli.training.files import RunFolder
from ascseg_cli.training.material import prepare, settle
from ascseg_cli.training.run import Run
from ascseg_cli.training.step import OUT_OF_MEMORY, TrainingStep

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_image_without_a_mask_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    data, watch = shutil.copytree(folder, tmp_path / "data"), Watcher()
    first, second = (pair.masks[0] for pair in open_dataset(data).split().train[:2])
    for mask in (first, second):
        mask.unlink()
    prepare(settle({**TINY, "data": str(data), "steps": 1}, RunFolder(tmp_path), resume=False), CPU, watch.say)
    said = [text for kind, text in watch.lines if kind == "warning" and text.startswith("left out: ")]
    assert len(said) == 1
    assert sorted([first.name, second.name])[0] in said[0]
    assert "and 1 more" in said[0]


def test_a_training_part_with_nothing_to_find_is_refused(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    for pair in open_dataset(data).split().train:
        Image.new("L", (48, 44)).save(pair.masks[0])
    settings = settle({**TINY, "data": str(data), "steps": 1}, RunFolder(tmp_path), resume=False)
    with pytest.raises(DataError, match=r"the training part holds \d+ images, and none of them shows anything"):
        prepare(settings, CPU, Watcher().say)


def test_a_batch_that_isnt_finite_is_named_and_the_checkpoint_before_it_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third batch is spoilt where it is augmented; its files are found there by their pixels."""
    given = {**TINY, "data": str(folder), "steps": 50, "save_minutes": 1e-9}
    material = prepare(settings := settle(given, RunFolder(tmp_path), resume=False), CPU, Watcher().say)
    names = {pixels.tobytes(): name for pixels, name in zip(material.images.pixels, material.images.names)}
    batches: list[list[str]] = []
    really = Augmenter.__call__

    def call(self: Augmenter, images: torch.Tensor, *more: Any) -> tuple[torch.Tensor, ...]:
        batches.append([names[one.numpy().tobytes()] for one in images])
        changed, targets = really(self, images, *more)
        return (changed * float("nan") if len(batches) == 3 else changed), targets

    monkeypatch.setattr(Augmenter, "__call__", call)
    with pytest.raises(TrainingError, match=r"the loss of step 3 \(epoch 0\.\d\) is no longer finite") as caught:
        Run(material, settings, RunFolder(tmp_path), CPU, Watcher())()
    assert caught.value.message.split("its batch: ")[1].split(", ") == batches[2]
    assert RunFolder(tmp_path).checkpoints()[0].name == "checkpoint-0000002.safetensors"


class _LittleMemory:
    """A training step whose memory holds only so many images."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.really = TrainingStep._run

    def __call__(self, step: TrainingStep) -> None:
        if len(step._images) > self.most:
            raise OUT_OF_MEMORY("CUDA out of memory")
        self.really(step)


def test_out_of_memory_halves_the_batch_and_says_what_that_means(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = _LittleMemory(4)
    monkeypatch.setattr(TrainingStep, "_run", lambda step: memory(step))
    watch = Watcher()
    train(folder, tmp_path / "halved", watch, steps=3, batch=16)
    warnings = [text for kind, text in watch.lines if kind == "warning" and "memory" in text]
    assert [text.split(";")[0] for text in warnings] == [
        "out of memory with batches of 16: going on with 8",
        "out of memory with batches of 8: going on with 4",
    ]
    assert "this changes the training" in warnings[0]
    train(folder, tmp_path / "small", steps=3, batch=4)
    halved, small = (checkpoint.read(tmp_path / name / "weights.safetensors") for name in ("halved", "small"))
    assert all(np.array_equal(halved.tensors[name], tensor) for name, tensor in small.tensors.items())
    assert halved.metadata.training["batch_after_out_of_memory"] == {"1": 4}


def test_out_of_memory_below_two_images_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = _LittleMemory(1)
    monkeypatch.setattr(TrainingStep, "_run", lambda step: memory(step))
    with pytest.raises(TrainingError, match="out of memory with batches of 2 images of 16×16 px") as caught:
        train(folder, tmp_path / "run", steps=3)
    assert "--size" in caught.value.hint
