"""A whole run on drawn images: it learns, repeats itself with the same seed, and never opens a test image."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import ValidationError

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.split import SplitRule
from ascseg_cli.errors import DataError
from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg, checkpoint
from ascseg_cli.network.loss import deep_supervision_loss
from ascseg_cli.training.averaging import AveragedWeights, recompute_statistics
from ascseg_cli.training.fit import rate_at
from ascseg_cli.training.run import train
from ascseg_cli.training.settings import Settings
from ascseg_cli.training.step import Optimiser, TrainingStep

CPU = torch.device("cpu")
TINY = {"size": 16, "drawn_size": 20, "batch": 4, "checks": 1, "averaging": 0.5}


@pytest.fixture(autouse=True)
def _plain_kernels() -> Iterator[None]:
    """Plain torch on one thread: compiling kernels takes longer than these runs, waiting for threads too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with backend.using("reference"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red discs on skin-coloured ground; images whose names fall into the test part are no images at all."""
    root = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for i in range(30):
        image, mask = root / "images" / f"i{i}.png", root / "masks" / f"i{i}.png"
        if SplitRule().part(image.stem) == "test":
            image.write_bytes(b"never read")
            mask.write_bytes(b"never read")
            continue
        x, y, r = [*rng.integers(12, 36, 2).tolist(), int(rng.integers(6, 12))]
        for path, mode, ground, colour in ((image, "RGB", (220, 180, 160), (150, 40, 40)), (mask, "L", 0, 255)):
            canvas = Image.new(mode, (48, 44), ground)
            ImageDraw.Draw(canvas).ellipse((x - r, y - r, x + r, y + r), fill=colour)
            canvas.save(path)
    assert min(open_dataset(root).split().counts().values()) > 0
    return root


def _losses(caplog: pytest.LogCaptureFixture) -> list[float]:
    lines = [r.getMessage() for r in caplog.records if "loss" in r.getMessage()]
    return [float(line.split("loss ")[1].split(",")[0]) for line in lines]


def test_a_run_learns_and_writes_weights_that_load(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(**{**TINY, "steps": 40, "checks": 10})
    metadata = train(folder, settings, tmp_path / "w.safetensors", CPU)
    losses = _losses(caplog)
    assert losses[-1] < 0.9 * losses[0], losses
    stored = checkpoint.read(tmp_path / "w.safetensors").metadata
    assert stored == metadata
    assert stored.split["train"] == len(open_dataset(folder).split().train)
    assert stored.training["steps"] == 40
    assert {(s.part, s.metric) for s in stored.scores} == {
        ("validation", "pooled_iou"),
        ("validation", "mean_dice"),
    }
    assert stored.statistics["distance"].high > 0
    y = ASCSeg.from_weights(tmp_path / "w.safetensors").heads(torch.zeros(1, 3, 32, 32))[0]
    assert torch.isfinite(y).all()


def test_the_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    stored = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(folder, Settings(**TINY, steps=3, seed=seed), tmp_path / name, CPU)
        stored.append(checkpoint.read(tmp_path / name).tensors)
    first, again, other = stored
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not all(np.array_equal(first[k], other[k]) for k in first)


def test_an_early_stage_trains_at_its_own_size(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    low_logits = ASCSeg.low_logits

    def spy(self: ASCSeg, x: torch.Tensor) -> object:
        if self.training and torch.is_grad_enabled():
            seen.append(tuple(x.shape))
        return low_logits(self, x)

    monkeypatch.setattr(ASCSeg, "low_logits", spy)
    settings = Settings(
        **{**TINY, "size": 32, "drawn_size": 40}, steps=4, early_share=0.5, early_size=16, early_batch=6
    )
    metadata = train(folder, settings, tmp_path / "w", CPU)
    assert seen == [(6, 3, 16, 16)] * 2 + [(4, 3, 32, 32)] * 2
    assert metadata.preprocessing.size == (32, 32)


def test_too_few_images_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training images, a batch holds 64"):
        train(folder, Settings(**{**TINY, "batch": 64}, steps=1), tmp_path / "w", CPU)
    assert not (tmp_path / "w").exists()


def test_masks_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    for kind, size in (("images", (20, 10)), ("masks", (10, 20))):
        (tmp_path / kind).mkdir()
        for pair in open_dataset(folder).split().train:
            Image.new("L", size).save(tmp_path / kind / pair.image.name)
    with pytest.raises(DataError, match=r"is 10×20 px, its image i\d+\.png 20×10"):
        train(tmp_path, Settings(**TINY, steps=1), tmp_path / "w", CPU)


def test_a_step_is_adamw_on_clipped_gradients() -> None:
    torch.manual_seed(0)
    model = ASCSeg()
    plain = copy.deepcopy(model)
    settings = Settings(**{**TINY, "decay": 0.0, "clip": 0.5}, steps=1)
    images, targets = torch.rand(4, 3, 16, 16), (torch.rand(4, 1, 16, 16) > 0.5).float()
    step = TrainingStep(model, Optimiser(model, settings), settings.stages()[0])
    step(images, targets, 1e-3)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0, foreach=False)
    deep_supervision_loss(plain.train()(images), targets).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    optimiser.step()
    for got, want in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(got, want)


def test_averages_ramp_and_statistics_are_the_batches_own() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    averaged = AveragedWeights(model, 0.999)
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    averaged.update(0)  # decay 1/10
    torch.testing.assert_close(averaged.model[0].weight, torch.full((2,), 0.1 * 1 + 0.9 * 3))
    batches = [torch.randn(3, 2, 5, 5) * 4 + i for i in range(3)]
    recompute_statistics(averaged.model, batches)
    want = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(averaged.model[0].running_mean, want)
    assert not averaged.model.training
    assert averaged.model[0].momentum == 0.1


def test_the_rate_rises_then_falls() -> None:
    settings = Settings(**TINY, steps=1, rate=1.0, warmup=0.1)
    rates = [rate_at(i / 100, settings) for i in range(101)]
    peak = rates.index(max(rates))
    assert peak == 10
    assert rates[peak] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "either steps or minutes"),
        ({"steps": 1, "minutes": 1}, "either steps or minutes"),
        ({"steps": 1, "bach": 4}, "bach"),
        ({"steps": 1, "size": 100}, "multiple of 16"),
        ({"steps": 1, "batch": 1}, "greater than or equal to 2"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**wrong)
