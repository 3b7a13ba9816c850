"""predict and evaluate with an exported file, in processes that can't import torch: all works as with weights."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import exit_codes

from .without import ascseg, files

pytest.importorskip("onnxruntime", reason="exported files are run by onnxruntime")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
Draw = Callable[..., Path]
Answer = Callable[[np.ndarray], np.ndarray]
KINDS = "masks,overlays,probabilities,polygons"


def test_a_folder_without_torch(draw: Draw, photos: Path, pictures: list[np.ndarray], stand_in: Answer) -> None:
    model, out = draw(), photos.parent / "out"
    run = ascseg("predict", photos, "--weights", model, "--save", KINDS, "--output", out, "--json", "--threads", 2)
    assert run.code == exit_codes.SOME_FAILED
    assert "note: stand-in on cpu, backend onnxruntime" in run.stderr
    assert "failed: z_cut.png: " in run.stderr
    assert run.loaded == []
    assert run.megabytes < 300
    assert {json.loads(line)["status"] for line in run.stdout.splitlines()} == {"ok", "failed"}
    for stem, pixels in zip(("a", "b", "환자 1/사진", "환자 1/a"), pictures):
        mask = np.asarray(Image.open(out / f"masks/{stem}.png"))
        probability = np.asarray(Image.open(out / f"probabilities/{stem}.png")) / 65535
        want = stand_in(pixels)
        np.testing.assert_allclose(probability, want, atol=1e-5)
        sure = np.abs(want - 0.4) > 1e-6
        np.testing.assert_array_equal(mask[sure], 255 * (want >= 0.4)[sure])
        assert json.loads((out / f"polygons/{stem}.geojson").read_bytes())["features"]
    told = json.loads((out / "run.json").read_bytes())
    assert told["backend"] == "onnxruntime"
    assert told["settings"]["threshold"] == 0.4
    assert told["versions"]["onnxruntime"]
    assert told["settings"]["batch_size"] == "auto"


def test_batches_and_threads_change_no_byte(draw: Draw, photos: Path) -> None:
    model, got = draw(), []
    for number, options in enumerate(
        (["--batch-size", 1], ["--batch-size", 3], ["--threads", 1], ["--threads", 2])
    ):
        out = photos.parent / f"out{number}"
        run = ascseg("predict", photos, "--weights", model, "--save", KINDS, "--output", out, *options)
        assert run.code == exit_codes.SOME_FAILED
        assert ("--batch-size 3 isn't used" in run.stderr) == (options == ["--batch-size", 3])
        got.append(files(out))
    assert len(got[0]) == 16
    assert all(other == got[0] for other in got[1:])


def test_resume_knows_the_file_by_its_hash(draw: Draw, photos: Path) -> None:
    (photos / "z_cut.png").unlink()
    model, out = draw(), photos.parent / "out"
    common = ("predict", photos, "--weights", model, "--output", out)
    assert ascseg(*common).code == exit_codes.OK
    before = files(out)
    again = ascseg(*common, "--resume")
    assert again.code == exit_codes.OK
    assert "(4 from an earlier run)" in again.stderr
    (out / "masks/a.png").unlink()
    assert "(3 from an earlier run)" in ascseg(*common, "--resume").stderr
    assert files(out) == before
    model.write_bytes(draw("other.onnx", record={"version": "2"}).read_bytes())
    changed = ascseg(*common, "--resume")
    assert "4 images done again: weights or settings have changed" in changed.stderr
    assert "from an earlier run" not in changed.stderr
    assert files(out) == before


def test_one_image_through_a_pipe_with_options(
    draw: Draw, photos: Path, pictures: list[np.ndarray], stand_in: Answer
) -> None:
    content = (photos / "a.png").read_bytes()
    run = ascseg("predict", "-", "--weights", draw(), "--threshold", 0.7, "--tta", stdin=content)
    assert run.code == exit_codes.OK
    mask = np.asarray(Image.open(io.BytesIO(run.stdout.encode("latin-1"))))
    pixels = pictures[0]
    views = [
        stand_in(pixels), stand_in(pixels[:, ::-1])[:, ::-1], stand_in(pixels[::-1])[::-1],
        stand_in(pixels[::-1, ::-1])[::-1, ::-1],
    ]  # fmt: skip
    mean = np.mean(views, axis=0)
    sure = np.abs(mean - 0.7) > 1e-6
    np.testing.assert_array_equal(mask[sure], 255 * (mean >= 0.7)[sure])


def test_evaluate_without_torch(draw: Draw, photos: Path, pictures: list[np.ndarray], stand_in: Answer) -> None:
    data = photos.parent / "data"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    want = []
    for number, pixels in enumerate(pictures):
        truth = np.arange(pixels.shape[1]) > 20 + np.zeros((pixels.shape[0], 1))
        Image.fromarray(pixels).save(data / f"images/{number}.png")
        Image.fromarray(truth).save(data / f"masks/{number}.png")
        found = stand_in(pixels) >= 0.4
        want.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    run = ascseg("evaluate", data, "--weights", draw(), "--json")
    assert run.code == exit_codes.OK
    assert "torch" not in run.loaded
    told = json.loads(run.stdout)
    assert told["settings"]["weights"] == "stand-in"
    assert told["protocols"]["per_image"]["dice"] == pytest.approx(np.mean(want), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (
            ("--backend", "cpu"),
            exit_codes.NOTHING_DONE,
            "error: backend cpu can't be used: exported files",
        ),
        (
            ("--device", "cuda"),
            exit_codes.NOTHING_DONE,
            "error: device cuda can't be used: exported files",
        ),
        (("--device", "tpu"), exit_codes.USAGE, "error: device 'tpu' is unknown"),
        (("--precision", "tf32"), exit_codes.NOTHING_DONE, "error: precision tf32 can't be used"),
    ],
)
def test_what_cannot_be_is_one_line_and_its_hint(
    draw: Draw, photos: Path, options: tuple[str, str], code: int, words: str
) -> None:
    run = ascseg("predict", photos, "--weights", draw(), *options)
    assert run.code == code
    assert run.stderr.startswith(words)
    assert [line.partition(":")[0] for line in run.stderr.splitlines()] == ["error", "hint"]
    assert not (photos.parent / "photos_ascseg").exists()


def test_damaged_and_foreign_files(draw: Draw, photos: Path) -> None:
    whole = draw(hashed=True).read_bytes()
    middle = whole.index(b"Sigmoid")
    path = photos.parent / "bad.onnx"
    for content, words in (
        (whole[:300], "is no ONNX file, or is truncated"),
        (whole[:middle] + b"S" + whole[middle + 1 :], "done"),
        (whole[:middle] + b"X" + whole[middle + 1 :], "is damaged or was altered"),
        (b"", "is no ONNX file"),
        (draw("foreign.onnx", props={}).read_bytes(), "without ascseg's metadata"),
    ):
        path.write_bytes(content)
        run = ascseg("predict", photos, "--weights", path, "--overwrite")
        assert words in run.stderr
        assert run.code == (exit_codes.SOME_FAILED if words == "done" else exit_codes.NOTHING_DONE)
        assert "Traceback" not in run.stderr
        assert "bug" not in run.stderr


def test_a_picture_of_another_size_than_the_files_is_a_row(draw: Draw, photos: Path) -> None:
    run = ascseg("predict", photos, "--weights", draw(record={"static": [40, 60]}))
    assert run.code == exit_codes.SOME_FAILED
    assert "failed: b.png: the image is 33×91 px, and the exported file takes only 40×60 px" in run.stderr
    assert "2 ok, 3 failed" in run.stderr


def test_training_without_torch_is_one_line(photos: Path) -> None:
    run = ascseg("train", "--data", photos, "--output", photos.parent / "run")
    assert run.code == exit_codes.NOTHING_DONE
    assert run.stderr.startswith("error: this needs torch, which can't be imported: No module named 'torch'\n")


def test_the_doctor_goes_on_without_torch() -> None:
    run = ascseg("doctor")
    assert run.code == exit_codes.OK
    assert "torch isn't installed" in run.stdout
    assert run.stdout.count("extra ") >= 3


def test_without_onnxruntime_the_extra_is_named(draw: Draw, photos: Path) -> None:
    run = ascseg("predict", photos, "--weights", draw(), missing=("torch", "onnxruntime"))
    assert run.code == exit_codes.NOTHING_DONE
    assert "error: running an exported file needs the extra `onnx`, which isn't installed" in run.stderr
    assert 'hint: run: pip install "ascseg[onnx]"' in run.stderr
