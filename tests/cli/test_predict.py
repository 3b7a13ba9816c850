"""`ascseg predict` as a user meets it: files in, files and exit codes out; the real engine, drawn weights."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import cli
from ascseg_cli.cli import prediction
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter

Predict = Callable[..., int]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four good pictures in two folders, one damaged one, a text file."""
    folder = tmp_path / "photos"
    (folder / "환자 1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "환자 1/사진 🙂.png", "환자 1/a.png")):
        pixels = rng.integers(0, 256, (40 + 10 * number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "z_cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder


@pytest.fixture
def predict(drawn_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        base = ["predict", "--weights", str(drawn_weights), "--backend", "reference", "--threads", "1"]
        return cli.run([*base, *map(str, arguments)])

    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


def command(weights: Path, *arguments: object) -> list[str]:
    base = [sys.executable, "-m", "ascseg_cli", "predict", "--weights", str(weights), "--backend", "reference"]
    return [*base, *map(str, arguments)]


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


@pytest.fixture
def terminal() -> Iterator[None]:
    """Processes started inside don't ignore SIGHUP, even where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("terminal")
def test_an_interrupt_ends_well_and_resume_goes_on(drawn_weights: Path, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for index in range(40):
        Image.fromarray(np.roll(pixels, index)).save(folder / f"{index:03}.png")
    whole = command(drawn_weights, folder, "-o", tmp_path / "out", "--json")
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()  # the first image is done, so the run is under way
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(stdout.splitlines()) == 39
    assert b"--resume" in stderr
    assert b"Traceback" not in stderr
    statuses = [row["status"] for row in rows(tmp_path / "out")]
    assert statuses.count("skipped") > 10
    assert not list((tmp_path / "out").rglob(".ascseg-*"))
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 40 - statuses.count("skipped")
    if number != signal.SIGINT:
        return  # going on is the same
    again = subprocess.run([*whole, "--resume"], capture_output=True, check=True)
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert sum(one["resumed"] for one in told) == 40 - statuses.count("skipped")
    assert {row["status"] for row in rows(tmp_path / "out")} <= {"ok", "empty"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_under_nohup_a_closed_terminal_ends_nothing(drawn_weights: Path, photos: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom ascseg_cli import cli\nfrom ascseg_cli.cli import predict\n"
        "found = predict.weights_file\n"
        "predict.weights_file = lambda *given: (os.kill(os.getpid(), signal.SIGHUP), found(*given))[1]\n"
        "cli.main(sys.argv[1:])"
    )
    arguments = command(drawn_weights, photos / "a.png", "-o", tmp_path / "out")[3:]
    run = subprocess.run(["nohup", sys.executable, "-c", script, *arguments], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {row["status"] for row in rows(tmp_path / "out")} <= {"ok", "empty"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_a_second_interrupt_stops_at_once(drawn_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.bmp")
    for index in range(1, 40):
        os.link(folder / "0.bmp", folder / f"{index}.bmp")
    process = subprocess.Popen(
        command(drawn_weights, folder, "-o", tmp_path / "out", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:  # two signals that come too close to each other are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(stdout.splitlines()) < 39, "rows of images that weren't reached come only from an orderly end"
    assert b"Traceback" not in stderr
    assert not list((tmp_path / "out").rglob(".ascseg-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.usefixtures("terminal")
def test_an_interrupt_before_the_first_image_is_one_line(drawn_weights: Path, photos: Path, name: str) -> None:
    script = (
        "import os, signal, sys\nfrom ascseg_cli import cli\nfrom ascseg_cli.cli import predict\n"
        f"predict.weights_file = lambda *_: os.kill(os.getpid(), signal.{name})\ncli.main(sys.argv[1:])"
    )
    arguments = command(drawn_weights, photos)[3:]
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (130, "interrupted: stopped before the end\n")


def test_an_interrupt_amid_exec_has_the_same_exit_code(tmp_path: Path) -> None:
    """Python makes dataclasses by `exec`; `python -m` would then end itself by SIGINT, though all was caught."""
    (tmp_path / "interrupted.py").write_text(
        "from ascseg_cli import cli\n"
        "cli._check_current_folder = lambda: exec('raise KeyboardInterrupt')\n"
        "cli.main()"
    )
    run = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (130, "interrupted: stopped before the end\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_leaves_amid_a_run_interrupts_it(drawn_weights: Path, photos: Path) -> None:
    for number in range(60):
        os.link(photos / "a.png", photos / f"c{number:02}.png")
    process = subprocess.Popen(
        command(drawn_weights, photos, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["image"] == "a.png"
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in stderr
    assert [row["status"] for row in rows(photos.parent / "photos_ascseg")].count("skipped") > 10


def test_a_reader_that_leaves_ends_the_run_in_good_order(drawn_weights: Path, photos: Path) -> None:
    process = subprocess.Popen(
        command(drawn_weights, photos, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        stderr = process.stderr.read()
    assert process.wait(timeout=60) in (1, 130)
    assert b"Traceback" not in stderr
    assert b"Exception ignored" not in stderr
    assert (photos.parent / "photos_ascseg" / "results.csv").exists()
