"""`ascseg evaluate DATA --weights FILE`: the network over a labelled folder, and which images it has seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import exit_codes
from ascseg_cli.cli import run
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import encode, fingerprint
from ascseg_cli.inference.segmenter import Segmenter
from ascseg_cli.network import checkpoint


@dataclass
class Folder:
    """images/ and masks/ of six smooth pictures, one of them without foreground."""

    root: Path

    def image(self, name: str) -> Path:
        return self.root / f"images/{name}.png"

    def truth(self, name: str) -> np.ndarray:
        return np.asarray(Image.open(self.root / f"masks/{name}_mask.png").convert("L")) > 127


NAMES = [f"sub/p{i}" for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    random = np.random.default_rng(8)
    for i, name in enumerate(NAMES):
        coarse = Image.fromarray(random.integers(0, 255, (5, 6, 3), np.uint8))
        picture = coarse.resize((60 + i, 50), Image.Resampling.BICUBIC)
        truth = np.asarray(picture.convert("L")) > (140 if i else 255)
        for path, values in ((made.image(name), picture), (made.root / f"masks/{name}_mask.png", truth)):
            path.parent.mkdir(parents=True, exist_ok=True)
            (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)
    return made


def with_training_images(weights: Path, images: list[Path], target: Path) -> Path:
    """The same weights, which say that they were trained on `images`."""
    read = checkpoint.read(weights)
    known = encode(fingerprint(read_pixels(path)) for path in images)
    checkpoint.write(target, read.tensors, read.metadata.model_copy(update={"training_images": known}))
    return target


def result(folder: Folder, weights: Path, capsys, *more: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert run(["evaluate", str(folder.root), "--weights", str(weights), "--json", *more]) == code
    return json.loads(capsys.readouterr().out)


def test_the_figures_are_those_of_the_masks_that_predict_makes(folder, drawn_weights, capsys) -> None:
    found = result(folder, drawn_weights, capsys, "--threshold", "0.4")
    assert [image["name"] for image in found["images"]] == [f"images/{name}" for name in NAMES]
    segment = Segmenter.from_weights(drawn_weights, threshold=0.4)
    brier = []
    for name, image in zip(NAMES, found["images"]):
        outcome, truth = segment(folder.image(name)), folder.truth(name)
        assert image["tp"] == (outcome.mask & truth).sum()
        assert image["fp"] == (outcome.mask & ~truth).sum()
        brier.append(((outcome.probability.astype(float) - truth) ** 2).mean())
        assert image["brier"] == pytest.approx(brier[-1], abs=1e-6)
    assert found["summary"]["brier"]["mean"] == pytest.approx(np.mean(brier), abs=1e-6)
    assert found["summary"]["average_precision"]["n"] == 5  # undefined without foreground
    assert sum(image["tp"] for image in found["images"]) > 100
    assert found["settings"]["threshold"] == 0.4


def test_the_polyp_protocol_and_the_curve(folder, drawn_weights, capsys) -> None:
    found = result(folder, drawn_weights, capsys)
    segment = Segmenter.from_weights(drawn_weights)
    dice = []
    for name in NAMES:
        p, truth = segment(folder.image(name)).probability, folder.truth(name)
        for t in np.linspace(1, 0, 256).astype(np.float32):
            total = (p >= t).sum() + truth.sum()
            dice.append(2 * ((p >= t) & truth).sum() / total if total else 1.0)
    assert found["protocols"]["polyp255"]["dice"] == pytest.approx(np.mean(dice), abs=1e-5)
    assert sum(part["pixels"] for part in found["reliability"]) == sum(50 * (60 + i) for i in range(6))
    assert found["protocols"]["pooled"]["ece"] == pytest.approx(
        sum(
            part["pixels"] * abs(part["mean_probability"] - part["foreground"])
            for part in found["reliability"]
            if part["pixels"]
        )
        / sum(part["pixels"] for part in found["reliability"])
    )


def test_a_part_is_that_of_the_split(folder, drawn_weights, capsys) -> None:
    names = {
        part: {image["name"] for image in result(folder, drawn_weights, capsys, "--part", part)["images"]}
        for part in ("train", "test")
    }
    assert names["train"] | names["test"] <= {f"images/{name}" for name in NAMES}
    assert names["train"]
    assert not names["train"] & names["test"]


def test_broken_images_are_named(folder, drawn_weights, capsys) -> None:
    folder.image(NAMES[1]).write_bytes(b"no picture")
    Image.new("RGB", (9, 9)).save(folder.image(NAMES[2]))
    found = result(folder, drawn_weights, capsys, code=exit_codes.SOME_FAILED)
    reasons = {one["name"]: one["reason"] for one in found["failed"]}
    assert "not an image" in reasons[f"images/{NAMES[1]}"]
    assert "the image is 9×9 px, its truth 62×50 px" in reasons[f"images/{NAMES[2]}"]
    assert len(found["images"]) == 4


def test_an_image_without_a_mask_is_an_error_unless_allowed(folder, drawn_weights, capsys) -> None:
    (folder.root / f"masks/{NAMES[3]}_mask.png").unlink()
    arguments = ["evaluate", str(folder.root), "--weights", str(drawn_weights)]
    assert run(arguments) == exit_codes.NOTHING_DONE
    assert "no mask of this name" in capsys.readouterr().err
    found = result(folder, drawn_weights, capsys, "--allow-unpaired")
    assert (len(found["images"]), found["unpaired"]) == (5, {"files": [f"images/{NAMES[3]}.png"]})


def test_every_figure_of_a_protocol_can_be_required(folder, drawn_weights, capsys) -> None:
    protocols = result(folder, drawn_weights, capsys)["protocols"]
    every = [
        f"{name}.{key}" for name, one in protocols.items() for key, figure in one.items() if figure is not None
    ]
    assert "pooled.ece" in every
    arguments = ["evaluate", str(folder.root), "--weights", str(drawn_weights), "-q", "--require"]
    assert run([*arguments, ",".join(f"{name}>=0" for name in every)]) == exit_codes.OK
    assert run([*arguments, "pooled.ece<0"]) == exit_codes.GATE_NOT_MET


def test_seen_images_are_counted_and_left_out(folder, drawn_weights, capsys, tmp_path: Path) -> None:
    flipped = tmp_path / "flipped.jpg"
    with Image.open(folder.image(NAMES[2])) as picture:
        larger = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((180, 150))
        larger.save(flipped, quality=80)
    weights = with_training_images(drawn_weights, [folder.image(NAMES[1]), flipped], tmp_path / "w.safetensors")
    found = result(folder, weights, capsys)
    assert found["seen_in_training"] == {"exact": 1, "near": 1, "checked": 6}
    seen = {image["name"]: image["seen"] for image in found["images"]}
    assert seen[f"images/{NAMES[1]}"] == "exact"
    assert seen[f"images/{NAMES[2]}"] == "near"
    unseen = [image["dice"] for image in found["images"] if not image["seen"]]
    assert found["summary_without_seen"]["dice"]["n"] == len(unseen) == 4
    assert found["summary_without_seen"]["dice"]["mean"] == pytest.approx(np.mean(unseen))


def test_strict_refuses_seen_images(folder, drawn_weights, capsys, tmp_path: Path) -> None:
    weights = with_training_images(drawn_weights, [folder.image(NAMES[1])], tmp_path / "w.safetensors")
    arguments = ["evaluate", str(folder.root), "--strict", "--weights"]
    assert run([*arguments, str(weights)]) == exit_codes.GATE_NOT_MET
    assert "1 of 6 images were seen in training: 1 exactly, 0 nearly" in capsys.readouterr().err
    assert run([*arguments, str(drawn_weights)]) == exit_codes.GATE_NOT_MET
    assert "don't say what they were trained on" in capsys.readouterr().err
    none = with_training_images(drawn_weights, [], tmp_path / "none.safetensors")
    assert run([*arguments, str(none), "-q"]) == exit_codes.OK


def test_weights_are_compared_through_the_csv_of_the_others(folder, drawn_weights, capsys, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    result(folder, drawn_weights, capsys, "--csv", str(rows), "--threshold", "0.4")
    found = result(folder, drawn_weights, capsys, "--compare", str(rows))["comparison"]
    assert found["images"] == 6
    assert found["metrics"]["brier"]["equal"] == 6
    assert found["metrics"]["dice"]["equal"] < 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give DATA with --dataset or --weights, or --pred with --truth"),
        (["data"], "give --dataset or --weights"),
        (["data", "--pred", "a"], "give one of them"),
        (["--pred", "a"], "--pred with --truth"),
        (["data", "--dataset", "kvasir", "--part", "val"], "it must be train, validation, test or all"),
    ],
)
def test_wrong_usage(capsys, arguments: list[str], words: str) -> None:
    assert run(["evaluate", *arguments]) == exit_codes.USAGE
    assert words in capsys.readouterr().err
