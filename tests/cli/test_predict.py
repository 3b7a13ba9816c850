"""`ascseg predict` as a user meets it: files in, files and exit codes out; the real engine, drawn weights."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_runs import command, rows

from ascseg_cli import cli
from ascseg_cli.cli import prediction
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter

Predict = Callable[..., int]


@pytest.fixture
def predict(drawn_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        base = ["predict", "--weights", str(drawn_weights), "--backend", "reference", "--threads", "1"]
        return cli.run([*base, *map(str, arguments)])

    return run


def test_a_folder_is_mirrored_and_a_bad_file_is_a_row(
    predict: Predict, photos: Path, drawn_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos") == 1
    out = photos.parent / "photos_ascseg"
    names = ["a.png", "b.jpg", "z_cut.png", "환자 1/a.png", "환자 1/사진 🙂.png"]
    assert sorted(row["image"] for row in rows(out)) == sorted(names)
    assert {row["image"]: row["status"] for row in rows(out)}["z_cut.png"] == "failed"
    segmenter = Segmenter(open_engine(drawn_weights, device="cpu", backend="reference"))
    for stem, source in (("a", "a.png"), ("b", "b.jpg"), ("환자 1/사진 🙂", "환자 1/사진 🙂.png")):
        mask = np.asarray(Image.open(out / "masks" / f"{stem}.png"))
        np.testing.assert_array_equal(mask, segmenter(photos / source).mask * np.uint8(255))
        assert read_pixels(out / "overlays" / f"{stem}.png").shape[:2] == mask.shape
    assert len(list((out / "masks").rglob("*.*"))) == 4
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert "failed: z_cut.png: " in stderr
    assert ".txt 1" in stderr
    assert "backend reference" in stderr
    assert json.loads((out / "run.json").read_bytes())["arguments"][-1] == "photos"


def test_every_kind_is_saved_and_polygons_give_the_mask_back(predict: Predict, photos: Path) -> None:
    name = photos / "a.png"
    p = _probability(predict, name)
    middle = float(np.median(p))
    kinds = "masks,overlays,probabilities,polygons"
    assert predict(name, "-o", "all", "--save", kinds, "--threshold", middle) == 0
    mask = np.asarray(Image.open("all/masks/a.png")) > 0
    np.testing.assert_array_equal(mask, p >= np.float32(middle))
    stored = np.asarray(Image.open("all/probabilities/a.png"))
    np.testing.assert_array_equal(stored, np.rint(p.astype(np.float64) * 65535))
    drawn = np.zeros_like(mask)
    for feature in json.loads(Path("all/polygons/a.geojson").read_bytes())["features"]:
        geometry = feature["geometry"]
        for rings in [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]:
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, ring[1:]):  # noqa: RUF007
                    if x0 == x1:  # each vertical edge turns over everything to its right
                        drawn[min(y0, y1) : max(y0, y1), x0:] ^= True
    np.testing.assert_array_equal(drawn, mask)
    (row,) = rows(Path("all"))
    assert int(row["foreground_pixels"]) == mask.sum()
    assert row["status"] == "ok"


def _probability(predict: Predict, image: Path) -> np.ndarray:
    weights = predict.__closure__[0].cell_contents  # type: ignore[attr-defined]
    return Segmenter(open_engine(weights, device="cpu", backend="reference"))(image).probability


def test_json_is_one_line_an_image_and_all_of_stdout(
    predict: Predict, photos: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert predict("photos", "--json", "--quiet") == 1
    stdout, stderr = capfdbinary.readouterr()
    told = [json.loads(line) for line in stdout.decode("utf-8").splitlines()]
    listed = rows(Path("photos_ascseg"))
    assert [one["image"] for one in told] == [row["image"] for row in listed]
    for one, row in zip(told, listed):
        assert one["status"] == row["status"]
        assert all((Path("photos_ascseg") / path).is_file() for path in one["outputs"].values())
    assert stderr.count(b"\n") == 1, "quiet leaves the failure alone"


def test_resume_and_overwrite_and_neither(
    predict: Predict, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "z_cut.png").unlink()
    assert predict("photos") == 0
    first = {path: path.stat().st_mtime_ns for path in Path("photos_ascseg/masks").rglob("*.png")}
    assert predict("photos") == 2
    assert "--resume" in capfd.readouterr().err
    gone = next(iter(first))
    gone.unlink()
    assert predict("photos", "--resume") == 0
    again = {path: path.stat().st_mtime_ns for path in Path("photos_ascseg/masks").rglob("*.png")}
    assert {path for path in first if first[path] != again[path]} == {gone}
    assert "3 from an earlier run" in capfd.readouterr().err
    assert predict("photos", "--resume", "--overwrite") == 2
    assert predict("photos/a.png", "-o", "photos_ascseg", "--overwrite") == 0
    assert [path.name for path in Path("photos_ascseg/masks").rglob("*.png")] == ["a.png"]


def test_a_dry_run_writes_nothing_and_says_everything(
    predict: Predict, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos", "--dry-run") == 0
    assert not Path("photos_ascseg").exists()
    stdout, _ = capfd.readouterr()
    assert len(stdout.splitlines()) == 5
    assert "photos_ascseg/masks/환자 1/사진 🙂.png".replace("/", os.sep) in stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("arguments", [["--dry-run"], [], ["--json"]])
def test_no_name_acts_on_a_terminal_or_a_spreadsheet(
    predict: Predict, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    names = [
        "\x1b[2J\x1b]0;owned\x07.png",
        "a\nb.png",
        "=cmd|' C calc'!A0.png",
        "\u202egnp.exe.png",
        "\udcff.png",
    ]
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).write_bytes(b"no image")
    predict("photos", *arguments)
    stdout, stderr = capfd.readouterr()
    assert (stdout + stderr).replace("\n", "").isprintable()
    assert "owned" in stdout + stderr
    if arguments != ["--dry-run"]:
        assert len(rows(Path("photos_ascseg"))) == len(names)
        assert not any(row["image"][0] in "=+-@" for row in rows(Path("photos_ascseg")))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\0"])
def test_names_from_a_list(predict: Predict, photos: Path, ending: str) -> None:
    names = [str(photos / "b.jpg"), str(photos / "환자 1" / "사진 🙂.png")]
    Path("list.txt").write_bytes("".join(name + ending for name in names).encode())
    assert predict("--files-from", "list.txt", "-o", "out", *(["-0"] if ending == "\0" else [])) == 0
    assert [row["image"] for row in rows(Path("out"))] == ["b.jpg", "사진 🙂.png"]


def test_a_list_with_nul_bytes_names_the_option(predict: Predict, capfd: pytest.CaptureFixture[str]) -> None:
    Path("list.txt").write_bytes(b"a\0b\0")
    assert predict("--files-from", "list.txt", "-o", "out") == 2
    assert "add -0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no INPUT"),
        (["-", "--json"], 2, "--json"),
        (["-", "--files-from", "-"], 2, "can't be combined"),
        (["-", "photos"], 2, "can't be combined"),
        (["-", "--save", "overlays"], 2, "--save needs --output"),
        (["-", "--dry-run"], 2, "--dry-run"),
        (["photos", "--resume", "--overwrite"], 2, "exclude each other"),
        (["--files-from", "-"], 2, "--output"),
        (["--files-from", "nowhere", "-o", "x"], 2, "can't be read"),
        (["photos", "-0"], 2, "--files-from"),
        (["photos", "--dataset", "kvasir"], 2, "not both"),
        (["photos", "--variant", "tiny"], 2, "--variant"),
        (["photos", "--threshold", "1.5"], 2, "between 0 and 1"),
        (["photos", "--threshold", "nan"], 2, "between 0 and 1"),
        (["photos", "--save", "masks,pdf"], 2, "'pdf'"),
        (["photos", "--save", ","], 2, "nothing to write"),
        (["photos", "--batch-size", "0"], 2, "at least 1"),
        (["photos", "--batch-size", "100000000"], 2, "at most 4,096"),
        (["photos", "--batch-size", "many"], 2, "auto or a whole number"),
        (["photos", "--min-area", "-1"], 2, "0 or more"),
        (["photos", "--max-pixels", "0"], 2, "at least 1"),
        (["photos", "--threads", "0"], 2, "threads"),
        (["photos", "--threads", "1000000000000"], 2, "threads"),
        (["photos", "--output", ""], 2, "--output is empty"),
        (["photos", "--report", "photos/a.png"], 2, "would replace an image or a result"),
        (["photos", "--report", "photos_ascseg/results.csv"], 2, "would replace an image or a result"),
        (["photos", "--report", "photos_ascseg/masks/a.png"], 2, "would replace an image or a result"),
        (["photos", "--dry-run", "--report", "nowhere/page.html"], 3, "--report"),
        (["nowhere"], 3, "no such file"),
        (["photos", "--backend", "gpu"], 3, "can't run"),
        (["photos", "--device", "tpu"], 2, "unknown"),
        (["photos/z_cut.png"], 3, "truncated"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_wrong_usage_and_what_cannot_be_done(
    predict: Predict, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert predict(*arguments) == code
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert words in stderr
    assert "Traceback" not in stderr


def test_weights_must_be_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["predict", str(tmp_path)]) == 2
    assert "--dataset" in capfd.readouterr().err


def test_lists_are_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfa b.png\n\nc\xff.png\nlast")
    assert prediction.read_list(str(path), null=False) == ["a b.png", os.fsdecode(b"c\xff.png"), "last"]


# ---- as a process of its own


def test_one_image_from_stdin_to_a_mask_on_stdout(drawn_weights: Path, photos: Path) -> None:
    content = (photos / "b.jpg").read_bytes()
    run = subprocess.run(command(drawn_weights, "-"), input=content, capture_output=True, check=True)
    mask = np.asarray(Image.open(io.BytesIO(run.stdout)))
    want = Segmenter(open_engine(drawn_weights, device="cpu", backend="reference"))(read_pixels(content)).mask
    np.testing.assert_array_equal(mask, want * np.uint8(255))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_bad_bytes_from_stdin_leave_stdout_empty(drawn_weights: Path, content: bytes) -> None:
    run = subprocess.run(command(drawn_weights, "-"), input=content, capture_output=True, check=False)
    assert (run.returncode, run.stdout) == (3, b"")
    assert run.stderr.startswith(b"error: stdin: ")
