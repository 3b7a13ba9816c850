"""A run with a teacher: targets by the formula, a teacher that learns, the same weights however it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_runs import CPU, TINY, Watcher, train
from killed_training import same_weights
from small_teacher import GIVEN, SIDE, stand_in
from torch import nn

from ascseg_cli.errors import TrainingError, UsageError
from ascseg_cli.network import checkpoint
from ascseg_cli.training import distillation
from ascseg_cli.training.distillation import Softener
from ascseg_cli.training.files import TEACHER, WEIGHTS, RunFolder
from ascseg_cli.training.material import prepare, settle
from ascseg_cli.training.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")
RUN = {"steps": 5, "size": 32, "drawn_size": 40, "early_share": 0.5, "early_size": 16, "early_batch": 6}
WITH_TEACHER = {**RUN, **GIVEN}


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, tmp_path_factory.mktemp("first"))
        yield


@pytest.fixture(scope="module")
def whole(folder: Path, small_teacher: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run with a teacher, through two sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("whole")
    train(folder, root, **WITH_TEACHER)
    torch.set_num_threads(threads)
    return root


class _Red(nn.Module):
    """Believes what an image's red says: p = red, of which it keeps the size it was asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(tuple(images.shape))
        return images[:, :1].logit()


def _oracle_enlarged(values: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, pixels as areas, edges repeated; (s, s) float64."""
    s = len(values)
    at = ((np.arange(side) + 0.5) * s / side - 0.5).clip(0, s - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, s - 1), at - low
    rows = values[low] * (1 - part)[:, None] + values[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


@pytest.mark.parametrize("size", [16, 32, 64])
def test_targets_lie_between_mask_and_teacher(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "SIDE", SIDE)
    rng = np.random.default_rng(0)
    images, masks = rng.uniform(0.05, 0.95, (2, 3, size, size)), rng.integers(0, 2, (2, 1, size, size))
    model = _Red()
    got = Softener(model, 0.3, {})(torch.tensor(images).float(), torch.tensor(masks).float())
    assert model.asked == [(2, 3, SIDE, SIDE)]
    for image, mask, target in zip(images, masks, got):
        red = image[0]
        if size < SIDE:
            red = _oracle_enlarged(red, SIDE).reshape(size, SIDE // size, size, SIDE // size).mean((1, 3))
        elif size > SIDE:
            each = size // SIDE
            red = _oracle_enlarged(red.reshape(SIDE, each, SIDE, each).mean((1, 3)), size)
        np.testing.assert_allclose(target[0], 0.3 * red + 0.7 * mask[0], atol=2e-6)


def test_a_teacher_learns_and_is_told_of(folder: Path, tmp_path: Path, small_teacher: None) -> None:
    watch = Watcher()
    train(folder, tmp_path / "run", watch, steps=2, **{**GIVEN, "teacher_epochs": 30.0})
    trained = next(text for kind, text in watch.lines if text.startswith("training the teacher"))
    told = next(text for kind, text in watch.lines if text.startswith("teacher: validation Dice"))
    training = checkpoint.read_metadata(tmp_path / "run" / WEIGHTS).training
    facts = training["teacher"]
    assert "efficientnet-lite2, 30 passes over" in trained
    assert f"{facts['validation_dice']:.4f}, IoU {facts['validation_iou']:.4f}" in told
    assert facts["validation_iou"] > 0.5, "red discs are easy to find"
    assert (facts["network"], facts["batch"], facts["steps"]) == ("efficientnet-lite2", 6, watch.taught)
    assert (training["teacher_share"], training["teacher_epochs"]) == (0.5, 30.0)
    card = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    assert "| teacher | network efficientnet-lite2, first_weights ImageNet, sha256 " in card


def test_a_share_of_nothing_is_no_teacher(folder: Path, tmp_path: Path, whole: Path) -> None:
    train(folder, tmp_path / "without", **RUN)
    train(folder, tmp_path / "nothing", **{**WITH_TEACHER, "teacher_share": 0.0})
    same_weights(tmp_path / "without", tmp_path / "nothing")
    with pytest.raises(AssertionError, match="tensors differ"):
        same_weights(tmp_path / "without", whole)


class _Ends(Watcher):
    """Ends the run after some of the teacher's or its own steps, asked to or as a kill does."""

    def __init__(self, taught: int, steps: int, *, kills: bool) -> None:
        super().__init__()
        self.most, self.kills = (taught, steps), kills

    def is_over(self) -> bool:
        return self.taught >= self.most[0] or len(self.steps) >= self.most[1]

    def teach(self, step: int, steps: int, loss: float) -> None:
        super().teach(step, steps, loss)
        if self.kills and self.is_over():
            raise KeyboardInterrupt


def _session(data: Path, output: Path, watch: _Ends) -> bool:
    folder = RunFolder(output)
    settings = settle({**TINY, "data": str(data), **WITH_TEACHER}, folder, resume=True)
    material = prepare(settings, CPU, watch.say)
    return Run(material, settings, folder, CPU, watch, watch.is_over)().finished


def test_a_run_in_pieces_has_one_teacher_and_the_same_weights(folder: Path, tmp_path: Path, whole: Path) -> None:
    pieces = tmp_path / "pieces"
    with pytest.raises(KeyboardInterrupt):
        _session(folder, pieces, _Ends(2, 99, kills=True))
    asked = _Ends(3, 99, kills=False)
    assert not _session(folder, pieces, asked)
    assert not (pieces / TEACHER).exists()
    assert any("its training will begin again" in text for _, text in asked.lines)
    first, second = (_Ends(99, steps, kills=False) for steps in (3, 99))
    assert [_session(folder, pieces, watch) for watch in (first, second)] == [False, True]
    steps = checkpoint.read_metadata(whole / WEIGHTS).training["teacher"]["steps"]
    assert (first.taught, second.taught) == (steps, 0)
    same_weights(whole, pieces)


def test_a_damaged_teacher_is_trained_again(folder: Path, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    assert not _session(folder, run, _Ends(99, 3, kills=False))
    content = bytearray((run / TEACHER).read_bytes())
    content[len(content) // 2] ^= 1
    (run / TEACHER).write_bytes(content)
    watch = _Ends(99, 99, kills=False)
    assert _session(folder, run, watch)
    said = [text for kind, text in watch.lines if kind == "warning" and "is damaged" in text]
    assert [text.split("; ")[1] for text in said] == ["the teacher is trained again"]
    same_weights(whole, run)
    (run / TEACHER).unlink()
    over = _Ends(99, 99, kills=False)
    assert _session(folder, run, over)
    assert over.taught == 0, "a finished run needs no teacher"


def test_another_runs_teacher_is_refused(folder: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / TEACHER).write_bytes((whole / TEACHER).read_bytes())
    with pytest.raises(UsageError, match=r"teacher\.safetensors belongs to a run on other images"):
        train(folder, tmp_path, **{**WITH_TEACHER, "seed": 1})


def test_a_teacher_without_numbers_ends_the_run(
    folder: Path, tmp_path: Path, small_teacher: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(distillation._SCHEDULE, "rate", 1e30)
    with pytest.raises(TrainingError, match=r"the teacher's loss is no longer finite at step \d"):
        train(folder, tmp_path / "run", **GIVEN, steps=1)
    assert not (tmp_path / "run" / TEACHER).exists()
