"""Weights in onnxruntime, where torch can't be imported or the user says so: the same masks as in torch."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import exit_codes
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import BackendError, MissingExtraError, UsageError
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter
from ascseg_cli.inference.tta import predict_probability
from ascseg_cli.network.checkpoint import read
from ascseg_cli.weights.store import locate

from .without import BROKEN, ascseg, files

pytest.importorskip("onnxruntime", reason="it runs the weights")
pytest.importorskip("onnx", reason="the graph is written with it")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = "masks,overlays,probabilities,polygons"


def masks(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted((folder / "masks").rglob("*.png")):
        yield path.name, np.asarray(Image.open(path))


@pytest.mark.parametrize(("dataset", "images"), [("kvasir", "polyps"), ("isic2018", "skin")])
def test_the_shipped_weights_give_torchs_masks(tmp_path: Path, dataset: str, images: str) -> None:
    out = tmp_path / "out"
    run = ascseg("predict", EXAMPLES / images, "--dataset", dataset, "--output", out, "--save", KINDS)
    assert run.code == exit_codes.OK, run.stderr
    assert f"note: {dataset}-tiny on cpu, backend onnxruntime, since torch isn't installed\n" in run.stderr
    assert "warning" not in run.stderr
    assert run.loaded == ["onnx"]
    assert run.megabytes < 330
    told = json.loads((out / "run.json").read_bytes())
    assert (told["backend"], told["backend_note"]) == ("onnxruntime", "torch isn't installed")
    assert told["weights"]["sha256"] == read(locate(dataset, None)).sha256
    torchs = Segmenter.from_pretrained(dataset, device="cpu")
    assert torchs.engine.backend != "onnxruntime"
    changed = pixels = found = 0
    for name, mask in masks(out):
        (source,) = (EXAMPLES / images).glob(f"{Path(name).stem}.*")
        want = torchs(source)
        changed += (want.mask != (mask > 0)).sum()
        pixels += mask.size
        found += (mask > 0).sum()
        got = np.asarray(Image.open(out / "probabilities" / name)) / 65535
        assert np.abs(got - want.probability).max() < 1e-4
    assert found > 0.01 * pixels
    assert changed <= 1e-4 * pixels


@pytest.mark.parametrize(("dataset", "folder"), [("kvasir", "Kvasir"), ("busi", "BUSI")])
def test_masks_of_real_images_are_torchs(shared_data: Path, dataset: str, folder: str) -> None:
    pairs = open_dataset(shared_data / folder).split().validation[:4]
    torchs, others = (
        Segmenter.from_pretrained(dataset, device="cpu", backend=name) for name in ("auto", "onnxruntime")
    )
    masks = [(torchs(pair.image).mask, others(pair.image).mask) for pair in pairs]
    assert sum(mask.any() for mask, _ in masks) > len(pairs) / 2
    assert sum((a != b).sum() for a, b in masks) <= 1e-4 * sum(a.size for a, _ in masks)


def test_a_run_of_another_engine_is_done_again_and_then_stands(drawn_weights: Path, photos: Path) -> None:
    (photos / "z_cut.png").unlink()
    out, page = photos.parent / "out", photos.parent / "page.html"
    common = ("predict", photos, "--weights", drawn_weights, "--output", out, "--device", "cpu")
    assert ascseg(*common, missing=()).code == exit_codes.OK
    resumed = ascseg(*common, "--resume")
    assert resumed.code == exit_codes.OK
    assert "the earlier run was made otherwise (backend cpu → onnxruntime)" in resumed.stderr
    assert "4 images done again" in resumed.stderr
    before = files(out)
    (out / "masks/a.png").unlink()
    again = ascseg(*common, "--resume", "--report", page)
    assert "(3 from an earlier run)" in again.stderr
    assert "otherwise" not in again.stderr
    assert files(out) == before
    assert "torch" not in again.loaded
    assert "onnxruntime" in page.read_text(encoding="utf-8")


def test_threads_batches_and_tta(drawn_weights: Path, photos: Path) -> None:
    """No byte depends on how the work is divided; four views give torch's mean."""
    (photos / "z_cut.png").unlink()
    got = []
    for number, options in enumerate((["--threads", 1], ["--threads", 2], ["--batch-size", 3])):
        out = photos.parent / f"out{number}"
        common = ("predict", photos, "--weights", drawn_weights, "--save", KINDS, "--output", out, "--tta")
        run = ascseg(*common, *options)
        assert run.code == exit_codes.OK
        got.append(files(out))
    assert got[0] == got[1] == got[2]
    torchs = open_engine(drawn_weights, device="cpu", backend="reference")
    want = predict_probability(torchs, read_pixels(photos / "b.png"), tta=True)
    found = np.asarray(Image.open(io.BytesIO(got[0]["probabilities/b.png"]))) / 65535
    assert np.abs(found - want).max() < 5e-5


def test_one_image_through_a_pipe(drawn_weights: Path, photos: Path) -> None:
    run = ascseg("predict", "-", "--weights", drawn_weights, stdin=(photos / "a.png").read_bytes())
    assert run.code == exit_codes.OK
    mask = np.asarray(Image.open(io.BytesIO(run.stdout.encode("latin-1")))) > 0
    want = Segmenter.from_weights(drawn_weights, device="cpu")(photos / "a.png")
    sure = np.abs(want.probability - want.threshold) > 1e-4
    np.testing.assert_array_equal(mask[sure], want.mask[sure])


def test_evaluate_gives_torchs_scores(tmp_path: Path) -> None:
    told = []
    for name, missing in (("torchs", ()), ("others", ("torch",))):
        rows = tmp_path / f"{name}.csv"
        run = ascseg(
            "evaluate", EXAMPLES / "practice", "--dataset", "isic2018", "--part", "validation", "--json",
            "--resamples", 100, "--csv", rows, "--device", "cpu", missing=missing,
        )  # fmt: skip
        assert run.code == exit_codes.OK, run.stderr
        lines = rows.read_text(encoding="utf-8").splitlines()
        told.append((json.loads(run.stdout), list(csv.DictReader(lines)), run))
    (torchs, rows, _), (others, other_rows, run) = told
    assert "isic2018-tiny on cpu, backend onnxruntime, threshold 0.5, since torch isn't installed" in run.stderr
    assert "torch" not in run.loaded
    assert (torchs["settings"].pop("backend"), others["settings"].pop("backend")) == ("cpu", "onnxruntime")
    assert torchs["settings"] == others["settings"]
    assert len(rows) == len(other_rows) > 1
    for one, other in zip(rows, other_rows):
        assert float(one["dice"]) > 0
        assert float(one["dice"]) == pytest.approx(float(other["dice"]), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda"), "device cuda"),
        (("--device", "mps"), "device mps"),
        (("--backend", "cpu"), "backend cpu"),
        (("--backend", "reference"), "backend reference"),
        (("--precision", "tf32"), "precision tf32"),
    ],
)
def test_what_needs_torch_says_so(drawn_weights: Path, photos: Path, options: tuple[str, str], words: str) -> None:
    run = ascseg("predict", photos, "--weights", drawn_weights, *options)
    assert run.code == exit_codes.NOTHING_DONE
    error, hint = run.stderr.splitlines()
    assert error == f"error: {words} needs torch, which can't be imported: No module named 'torch'"
    assert hint.startswith(f"hint: install torch; or leave {options[0]} out")
    assert not (photos.parent / "photos_ascseg").exists()


@pytest.mark.parametrize("also", ["onnx", "onnxruntime"])
def test_without_either_the_way_out_is_one_line(drawn_weights: Path, photos: Path, also: str) -> None:
    run = ascseg("predict", photos, "--weights", drawn_weights, missing=("torch", also))
    assert run.code == exit_codes.NOTHING_DONE
    error, hint = run.stderr.splitlines()
    assert error == "error: this needs torch, which can't be imported: No module named 'torch'"
    assert hint.endswith("or, to predict and evaluate: pip install onnx onnxruntime (extra `export`)")
    assert not (photos.parent / "photos_ascseg").exists()


def test_a_broken_torch_is_a_warning_even_in_silence(drawn_weights: Path, photos: Path) -> None:
    (photos / "z_cut.png").unlink()
    run = ascseg("predict", photos, "--weights", drawn_weights, "--quiet", error=BROKEN)
    assert run.code == exit_codes.OK
    (line,) = [line for line in run.stderr.splitlines() if not line.startswith("warning: the images look")]
    assert line.startswith("warning: the slow backend onnxruntime runs: torch can't be imported: libcudart.so.12")


def test_who_asks_for_onnxruntime_gets_it_without_a_reason(drawn_weights: Path, photos: Path) -> None:
    (photos / "z_cut.png").unlink()
    run = ascseg("predict", photos, "--weights", drawn_weights, "--backend", "onnxruntime", missing=())
    assert run.code == exit_codes.OK
    assert "note: drawn on cpu, backend onnxruntime\n" in run.stderr
    assert "torch" not in run.loaded
    assert json.loads((photos.parent / "photos_ascseg/run.json").read_bytes())["backend_note"] == ""


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"device": "cuda"}, BackendError, "device cuda can't be used: onnxruntime runs on the CPU"),
        ({"precision": "tf32"}, BackendError, "precision tf32 can't be used: onnxruntime runs weights in float32"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is unknown"),
    ],
)
def test_what_onnxruntime_has_not(
    drawn_weights: Path, how: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_engine(drawn_weights, backend="onnxruntime", **how)  # type: ignore[arg-type]


def test_a_name_that_no_backend_has_lists_them_all(drawn_weights: Path) -> None:
    with pytest.raises(UsageError, match="backend 'fast' is unknown") as caught:
        open_engine(drawn_weights, backend="fast")
    assert "reference, cpu, gpu, mamba_ssm, onnxruntime" in str(getattr(caught.value, "hint", ""))


def test_without_onnx_the_extra_is_named(drawn_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="running weights by onnxruntime needs the extra `export`"):
        open_engine(drawn_weights, backend="onnxruntime")
