"""`ascseg export` as somebody types it: the file, its card and report, and every way in which it is refused."""

from __future__ import annotations

import importlib.util
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from ascseg_cli import cli
from ascseg_cli.errors import AscsegError, UsageError
from ascseg_cli.exporting import export as exporting
from ascseg_cli.exporting import verification
from ascseg_cli.exporting.comparison import Limits, Verdict, compared
from ascseg_cli.graphs.to_onnx import file as onnx_file
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.tta import predict_probability
from ascseg_cli.network.checkpoint import read_metadata
from ascseg_cli.weights.store import locate

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], drawn_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Runs `ascseg export` in an empty folder, on the small network; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def ascseg(*arguments: object, dataset: str = "") -> tuple[int, str, str]:
        weights = ["--dataset", dataset] if dataset else ["--weights", str(drawn_weights)]
        code = cli.run(["export", *weights, *map(str, arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return ascseg


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_stands_with_card_and_report(run: Run, tmp_path: Path, drawn_weights: Path) -> None:
    code, out, err = run()
    assert (code, out) == (0, "drawn.onnx\n")
    assert "polyp_1.jpg" in err
    assert names(tmp_path) == ["drawn.onnx", "drawn.onnx.json", "drawn.onnx.md"]
    report = json.loads((tmp_path / "drawn.onnx.json").read_text(encoding="utf-8"))
    assert report["total"]["max_difference"] <= 1e-4
    assert report["total"]["changed_share"] <= 1e-4
    assert {tuple(case["size"]) for case in report["compared"]} >= {(432, 512), (255, 257), (130, 17)}
    assert {case["batch"] for case in report["compared"]} == {1, 2, 3, 5}
    card = (tmp_path / "drawn.onnx.md").read_text(encoding="utf-8")
    assert report["sha256"] in card
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "drawn.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(["probability"], {"image": image[None]})
    want = predict_probability(open_engine(drawn_weights, device="cpu"), image)
    assert np.abs(got[0] - want).max() < 1e-4


def test_one_s_own_images_are_compared(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (50, 40), name.replace("a", "red").replace("b", "blue")).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    code, out, err = run("--images", folder, "--json", "--quiet")
    assert code == 0
    report = json.loads(out)
    assert [case["images"] for case in report["compared"]][:2] == ["a.png", "b.png"]
    assert "note: broken.png is left out" in err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--core-only"], "drawn-core.onnx"),
        (["--precision", "float16", "--static", "61x83"], "drawn-float16-61x83.onnx"),
    ],
)
def test_other_forms_are_compared_too(run: Run, tmp_path: Path, arguments: list[str], name: str) -> None:
    code, out, _ = run(*arguments)
    assert (code, out) == (0, f"{name}\n")
    report = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert report["total"]["max_difference"] > 0


@pytest.mark.timeout(900)  # torch.export works for half a minute, on one core that nothing else wants
def test_torch_export_is_compared_at_any_size(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--format", "pt2", "--images", ROOT / "examples/skin/lesion_1.jpg")
    assert (code, out) == (0, "drawn.pt2\n")
    report = json.loads((tmp_path / "drawn.pt2.json").read_text(encoding="utf-8"))
    assert report["runtime"].startswith("torch.export")
    assert {tuple(case["size"]) for case in report["compared"]} == {
        (400, 400),
        *(s[1:] for s in verification.SIZES),
    }
    assert 0 < report["total"]["max_difference"] <= 1e-4
    with zipfile.ZipFile(tmp_path / "drawn.pt2") as inside:
        (said,) = (inside.read(name) for name in inside.namelist() if name.endswith("extra/ascseg"))
    assert json.loads(said)["name"] == "drawn"


def spoilt(model: onnx.ModelProto) -> None:
    """One number of one weight, at the network's beginning, by as much as that weight's largest."""
    weight = next(w for w in model.graph.initializer if w.name == "encoder.eb1.ipc.3.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += np.abs(values).max()
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def with_other_threshold(model: onnx.ModelProto) -> None:
    threshold = float(np.float32(read_metadata(locate("kvasir", None)).threshold))
    weight = next(w for w in model.graph.initializer if w.name == f"float32_{threshold}")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.array(threshold + 0.1, np.float32), weight.name))


def without_a_mask(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoilt, "differs from predict by up to"),
        (with_other_threshold, "of the mask pixels; allowed are 0.0001 and 0.01%"),
        (without_a_mask, "can't be run"),
    ],
)
def test_a_file_with_other_results_is_never_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], words: str
) -> None:
    right = onnx_file.content

    def wrong(*arguments: Any) -> bytes:
        model = onnx.load_from_string(right(*arguments))
        spoil(model)
        return model.SerializeToString()

    monkeypatch.setattr(onnx_file, "content", wrong)
    code, out, err = run("--images", ROOT / "examples/polyps/polyp_1.jpg", dataset="kvasir")
    assert (code, out) == (3, "")
    assert words in err
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "coreml"], "format 'coreml' is unknown"),
        (["--opset", "17"], "opset 17 is too low"),
        (["--opset", "999"], "opset 999 is unknown"),
        (["--precision", "int8"], "precision 'int8' is unknown"),
        (["--static", "640"], "--static is '640'"),
        (["--static", "0x5"], "--static is '0x5'"),
        (["--output", "model.pb"], "a file of this format ends in .onnx"),
        (["--images", "nowhere"], "nowhere: no such image or folder"),
        (["--format", "pt2", "--opset", "20"], "--opset is of ONNX"),
        (["--format", "pt2", "--precision", "float16"], "has float32 alone"),
        (["--format", "pt2", "--core-only"], "needs a fixed size"),
        (["--variant", "base"], "--variant picks"),
    ],
)
def test_wrong_use_is_one_line(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert names(tmp_path) == []


def test_an_existing_file_stays_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.onnx.md").write_text("a page of mine")
    code, _, err = run("--output", "mine.onnx")
    assert code == 2
    assert "mine.onnx.md exists" in err
    assert names(tmp_path) == ["mine.onnx.md"]


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    code, _, err = run()
    assert code == 3
    assert 'pip install "ascseg[export]"' in err


def test_foreign_weights_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    assert cli.run(["export", "--weights", str(tmp_path / "w.safetensors")]) == 3
    assert "is no safetensors file" in capfd.readouterr().err


def test_an_exported_file_isn_t_exported_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", "--weights", "kvasir.onnx"]) == 2
    assert "kvasir.onnx is an exported file already" in capfd.readouterr().err


def test_a_write_that_fails_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".onnx":
            raise UsageError("the disk is full")
        path.write_bytes(content)

    monkeypatch.setattr(exporting, "write_whole", full)
    assert run()[0] == 2
    assert names(tmp_path) == []


def test_a_full_temporary_folder_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("100 requested and 20 written")  # numpy's words, without a number

    monkeypatch.setattr(verification.np, "save", full)
    code, _, stderr = run()
    assert code == 3
    assert re.search(r"error: the file can't be tried: .* can't be written: 100 requested and 20 written", stderr)
    assert "TMPDIR" in stderr
    assert names(tmp_path) == []


def test_the_verdict_counts_every_pixel() -> None:
    want = np.array([[[0.2, 0.6], [0.7, 0.4]]], np.float32)
    got = want + np.float32([[[0, 0], [0, 0.15]]])
    batch = compared("x", want, 0.5, got, (got >= 0.5).astype(np.uint8))
    assert (batch.changed, batch.pixels, batch.dice) == (1, 4, pytest.approx(2 * 2 / 5))
    assert batch.largest == pytest.approx(0.15, abs=1e-6)
    Verdict("r", Limits(0.2, 0.3), [batch]).check()
    for limits in (Limits(0.1, 0.3), Limits(0.2, 0.2)):
        with pytest.raises(AscsegError, match="differs from predict"):
            Verdict("r", limits, [batch]).check()


@pytest.mark.parametrize(
    ("got", "mask", "words"),
    [
        (np.full((1, 2, 2), np.nan, np.float32), np.zeros((1, 2, 2), np.uint8), "aren't numbers"),
        (np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 2), np.uint8), "not float32"),
        (np.zeros((1, 2, 2), np.float32), np.full((1, 2, 2), 255, np.uint8), "not 0 and 1"),
    ],
)
def test_results_of_another_form_are_refused(got: np.ndarray, mask: np.ndarray, words: str) -> None:
    with pytest.raises(AscsegError, match=words):
        compared("x", np.zeros((1, 2, 2), np.float32), 0.5, got, mask)


def test_the_sizes_that_are_tried_are_odd_and_several() -> None:
    assert any(h % 16 and w % 16 for _, h, w in verification.SIZES)
    assert len({batch for batch, _, _ in verification.SIZES}) > 2
