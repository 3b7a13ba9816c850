"""A whole run on drawn images: it learns, repeats itself with the same seed, and trains on no held-out image."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_runs import Watcher, train
from PIL import Image

from ascseg_cli.data import fingerprint
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import DataError, UsageError
from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg, checkpoint
from ascseg_cli.network.loss import deep_supervision_loss
from ascseg_cli.training.averaging import AveragedWeights, recompute_statistics
from ascseg_cli.training.fit import rate_at
from ascseg_cli.training.settings import Settings
from ascseg_cli.training.step import Optimiser, TrainingStep
from ascseg_cli.weights.store import locate

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_learns_and_leaves_everything(folder: Path, tmp_path: Path) -> None:
    watch = Watcher()
    outcome = train(folder, tmp_path / "run", watch, steps=24, checks=4)
    losses = [row.loss for row in outcome.rows]
    assert losses[-1] < 0.9 * losses[0], losses
    assert [row.step for row in watch.rows] == [6, 12, 18, 24]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "settings.toml", "split.csv", "log.csv", "weights.safetensors", "model_card.md", "curves.png",
        "overlays.jpg", "checkpoint-0000018.safetensors", "checkpoint-0000024.safetensors",
    }  # fmt: skip
    stored = checkpoint.read(tmp_path / "run" / "weights.safetensors")
    split = open_dataset(folder).split()
    assert stored.metadata.split["train"] == len(split.train)
    assert stored.metadata.training["steps"] == 24
    assert {(s.part, s.metric) for s in stored.metadata.scores} == {
        ("validation", "pooled_iou"),
        ("validation", "mean_dice"),
    }
    assert stored.metadata.statistics["distance"].high > 0
    card = (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    assert stored.sha256 in card
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 5
    for name, size in (("curves.png", (1120, 400)), ("overlays.jpg", (560, 330))):
        with Image.open(tmp_path / "run" / name) as picture:
            assert picture.size[0] >= size[0]
            assert picture.size[1] >= size[1]
    y = ASCSeg.from_weights(tmp_path / "run" / "weights.safetensors").heads(torch.zeros(1, 3, 32, 32))[0]
    assert torch.isfinite(y).all()


def test_the_weights_know_their_training_images_and_nothing_of_paths(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", steps=1)
    metadata = checkpoint.read_metadata(tmp_path / "run" / "weights.safetensors")
    split = open_dataset(folder).split()
    assert metadata.training_images is not None
    seen = {one.content for one in fingerprint.decode(metadata.training_images)}
    held = [fingerprint.fingerprint(read_pixels(pair.image)).content for pair in split.validation]
    assert seen == {fingerprint.fingerprint(read_pixels(pair.image)).content for pair in split.train}
    assert not seen & set(held)
    assert str(folder) not in metadata.to_json()


def test_a_copy_of_a_validation_image_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    split = open_dataset(folder).split()
    rows = [f"{p.image.name},{part}" for part in ("train", "validation") for p in getattr(split, part)]
    copied, original = split.train[0], split.validation[0]
    for kind, file in (("images", original.image), ("masks", original.masks[0])):
        (tmp_path / "d" / kind).mkdir(parents=True)
        for pair in (*split.train, *split.validation):
            source = pair.image if kind == "images" else pair.masks[0]
            content = file if pair == copied else source
            (tmp_path / "d" / kind / source.name).write_bytes(content.read_bytes())
    parts = tmp_path / "parts.csv"
    parts.write_text("\n".join(["image,part", *rows]))
    watch = Watcher()
    train(tmp_path / "d", tmp_path / "run", watch, steps=1, split_file=str(parts))
    warnings = [text for kind, text in watch.lines if kind == "warning"]
    assert any(f"{copied.image.name} is the same pixels as {original.image.name}" in text for text in warnings)
    metadata = checkpoint.read_metadata(tmp_path / "run" / "weights.safetensors")
    assert metadata.split["train"] == len(split.train) - len(warnings)
    assert f"{copied.image.name},train" not in (tmp_path / "run" / "split.csv").read_text()


def test_the_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    stored = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(folder, tmp_path / name, steps=3, seed=seed)
        stored.append(checkpoint.read(tmp_path / name / "weights.safetensors").tensors)
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
    sizes = {"size": 32, "drawn_size": 40, "early_share": 0.5, "early_size": 16, "early_batch": 6}
    train(folder, tmp_path / "run", steps=4, **sizes)
    assert seen == [(6, 3, 16, 16)] * 2 + [(4, 3, 32, 32)] * 2
    metadata = checkpoint.read_metadata(tmp_path / "run" / "weights.safetensors")
    assert metadata.preprocessing.size == (32, 32)


def test_fine_tuning_starts_from_the_weights_and_says_so(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", steps=1, rate=1e-9, averaging=0.0, **{"from": "kvasir"})
    base = checkpoint.read(locate("kvasir"))
    tuned = checkpoint.read(tmp_path / "run" / "weights.safetensors")
    assert tuned.metadata.preprocessing.mean == base.metadata.preprocessing.mean
    for name, tensor in base.tensors.items():
        if "running" not in name:
            np.testing.assert_allclose(tuned.tensors[name], tensor, atol=1e-7, rtol=1e-6)
    assert base.sha256 in tuned.metadata.source
    assert base.metadata.licence in tuned.metadata.licence
    assert tuned.metadata.training_images is not None
    assert base.metadata.training_images is not None
    seen, own = (set(fingerprint.decode(one.metadata.training_images or "")) for one in (tuned, base))
    assert own < seen
    assert len(seen - own) == tuned.metadata.split["train"]


def test_a_wider_variant_starts_from_narrower_weights(folder: Path, tmp_path: Path) -> None:
    """By the data set's name too, where it has no weights of that variant; never the other way."""
    train(folder, tmp_path / "run", steps=1, rate=1e-9, averaging=0.0, variant="small", **{"from": "kvasir"})
    file = tmp_path / "run" / "weights.safetensors"
    wide, base = checkpoint.read(file), checkpoint.read(locate("kvasir"))
    assert wide.metadata.variant == "small"
    assert base.sha256 in wide.metadata.source
    norm = "encoder.eb1.ipc.1.weight"
    np.testing.assert_allclose(wide.tensors[norm], base.tensors[norm].repeat(2), atol=1e-7)
    with pytest.raises(UsageError, match="is a small network, --variant is tiny; a network can be widened, not"):
        train(folder, tmp_path / "other", variant="tiny", **{"from": str(file)})


def test_validation_images_that_the_first_weights_saw_are_said(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "base", steps=1)
    split = open_dataset(folder).split()
    parts = {pair.image.name: "validation" if i % 2 else "train" for i, pair in enumerate(split.train)}
    for kind in ("images", "masks"):
        (tmp_path / "d" / kind).mkdir(parents=True)
        for pair in split.train:
            source = pair.image if kind == "images" else pair.masks[0]
            (tmp_path / "d" / kind / source.name).write_bytes(source.read_bytes())
    rows = [f"{name},{part}" for name, part in parts.items()]
    (tmp_path / "parts.csv").write_text("\n".join(["image,part", *rows]))
    watch = Watcher()
    base = {"from": str(tmp_path / "base" / "weights.safetensors"), "split_file": str(tmp_path / "parts.csv")}
    train(tmp_path / "d", tmp_path / "run", watch, steps=1, batch=2, **base)
    count = list(parts.values()).count("validation")
    assert any(text.startswith(f"{count} of {count} validation images are copies") for _, text in watch.lines)


def test_too_few_images_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training images, a batch holds 64"):
        train(folder, tmp_path / "run", steps=1, batch=64)
    assert not (tmp_path / "run").exists()
    for kind in ("images", "masks"):
        (tmp_path / "d" / kind).mkdir(parents=True)
        pair = open_dataset(folder).split().train[0]
        source = pair.image if kind == "images" else pair.masks[0]
        (tmp_path / "d" / kind / source.name).write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="1 images, and none of them falls into the validation part") as caught:
        train(tmp_path / "d", tmp_path / "run")
    assert "--split-file" in caught.value.hint


def test_masks_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    split = open_dataset(folder).split()
    for kind, size in (("images", (20, 10)), ("masks", (10, 20))):
        (tmp_path / "d" / kind).mkdir(parents=True)
        for i, pair in enumerate((*split.train, *split.validation)):
            picture = Image.effect_noise(size, 80 + i) if kind == "images" else Image.new("L", size)
            picture.save(tmp_path / "d" / kind / pair.image.name)
    with pytest.raises(DataError, match=r"is 10×20 px, its image i\d+\.png 20×10"):
        train(tmp_path / "d", tmp_path / "run", steps=1)


def test_a_step_is_adamw_on_clipped_gradients() -> None:
    torch.manual_seed(0)
    model = ASCSeg()
    plain = copy.deepcopy(model)
    settings = Settings(batch=4, size=16, decay=0.0, clip=0.5, steps=1)
    images, targets = torch.rand(4, 3, 16, 16), (torch.rand(4, 1, 16, 16) > 0.5).float()
    step = TrainingStep(model, Optimiser(model, settings), settings.stages()[0])
    with backend.using("reference"):
        step(images, targets, 1e-3)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0, foreach=False)
    with backend.using("reference"):
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


@pytest.mark.usefixtures("one_thread")
def test_few_alike_images_spoil_no_check(tmp_path: Path) -> None:
    practice = Path(__file__).resolve().parents[2] / "examples" / "practice"
    rows = train(practice, tmp_path / "run", steps=20, checks=2, size=32, drawn_size=40, averaging=0.8).rows
    assert rows[1].validation_iou > rows[0].validation_iou > 0.2, "statistics of images as they are give .1 here"


def test_the_rate_rises_then_falls() -> None:
    settings = Settings(steps=1, rate=1.0, warmup=0.1)
    rates = [rate_at(i / 100, settings) for i in range(101)]
    peak = rates.index(max(rates))
    assert peak == 10
    assert rates[peak] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
