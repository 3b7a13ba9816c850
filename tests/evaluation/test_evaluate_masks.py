"""`ascseg evaluate --pred --truth` as a stranger runs it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from masks import random_mask
from PIL import Image

from ascseg_cli import exit_codes
from ascseg_cli.cli import run
from ascseg_cli.kernels import machine_code

PROTOCOLS = {"per_image", "pooled", "isic", "polyp255"}


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def grey(mask: np.ndarray, full: int = 255) -> np.ndarray:
    return mask.astype(np.uint8) * full


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve pairs of every kind: a missed one is `m00`, a false alarm `m01`, both empty `m02`."""
    random = np.random.default_rng(4)
    for i in range(12):
        pred, truth = random_mask(random, (30, 41)), random_mask(random, (30, 41))
        if i < 3:
            pred[:], truth[:] = i == 1, i == 0
        write(tmp_path / f"pred/m{i:02d}.png", grey(pred, 255 if i % 2 else 1))
        write(tmp_path / f"truth/m{i:02d}_mask.png", grey(truth))
    return tmp_path / "pred", tmp_path / "truth"


def evaluate(folders: tuple[Path, Path], *more: str) -> int:
    pred, truth = folders
    return run(["evaluate", "--pred", str(pred), "--truth", str(truth), *more])


def result(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert evaluate(folders, "--json", "-q", *more) == code
    return json.loads(capsys.readouterr().out)


def test_json_has_what_checks_rely_on(folders, capsys) -> None:
    found = result(folders, capsys)
    assert [image["name"] for image in found["images"]] == [f"m{i:02d}" for i in range(12)]
    missed, false_alarm, both_empty = found["images"][:3]
    assert (missed["dice"], missed["iou"], missed["hd95"], missed["case"]) == (0, 0, None, "missed")
    assert (false_alarm["dice"], false_alarm["hd95"], false_alarm["area_error"]) == (0, None, None)
    assert (both_empty["dice"], both_empty["hd95"], both_empty["case"]) == (1, 0, "both_empty")
    assert set(found["protocols"]) == PROTOCOLS
    assert found["protocols"]["polyp255"] is None
    assert found["seen_in_training"] is None
    assert found["settings"]["unit"] == "px"


def test_means_count_a_miss_with_the_diagonal(folders, capsys) -> None:
    found = result(folders, capsys)
    hd95 = [np.hypot(30, 41) if image["hd95"] is None else image["hd95"] for image in found["images"]]
    undefined = sum(image["hd95"] is None for image in found["images"])
    figure = found["summary"]["hd95"]
    assert figure["mean"] == pytest.approx(np.mean(hd95))
    assert (figure["n"], figure["filled"]) == (12, undefined)
    assert undefined >= 2
    assert figure["low"] <= figure["mean"] <= figure["high"]


def test_protocols_by_their_definitions(folders, capsys) -> None:
    found = result(folders, capsys)
    images, protocols = found["images"], found["protocols"]
    iou = np.array([image["iou"] for image in images])
    tp, fp, fn = (sum(image[key] for image in images) for key in ("tp", "fp", "fn"))
    assert protocols["per_image"]["iou"] == found["summary"]["iou"]["mean"] == pytest.approx(iou.mean())
    assert protocols["pooled"]["iou"] == pytest.approx(tp / (tp + fp + fn))
    assert protocols["pooled"]["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert protocols["isic"]["iou"] == pytest.approx(np.where(iou >= 0.65, iou, 0).mean())


def test_any_number_of_threads_gives_the_same_bytes(folders, capsys) -> None:
    outputs = []
    for threads in ("1", "3", "8"):
        assert evaluate(folders, "--json", "-q", "--threads", threads) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]


def test_neither_torch_nor_numba_is_loaded(folders) -> None:
    code = (
        "import sys; from ascseg_cli.cli import run; code = run(sys.argv[1:]);"
        "print(*(name for name in ('torch', 'numba') if name in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    pred, truth = folders
    command = [sys.executable, "-c", code, "evaluate", "-q", "--pred", str(pred), "--truth", str(truth)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    compiler = "" if machine_code.usable() else "numba"  # where LLVM is too old for the kernel as it is shipped
    assert (done.returncode, done.stderr.strip()) == (0, compiler)


def test_the_table_fits_80_columns(folders, capsys) -> None:
    assert evaluate(folders, "--compare", str(folders[1])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for words in ("Dice", "ASC-Seg, VM-UNet", "empty masks: 1 missed", "better/worse"):
        assert any(words in line for line in lines)


@pytest.mark.parametrize(
    ("limits", "more", "met"),
    [
        ("dice>=0,hd95<=99", (), True),
        ("dice>=0.99", (), False),
        ("hd95<=0.5", (), False),
        ("dice>=0.99,hd95<=99", (), False),
        ("pooled.iou>0,isic.iou<1", (), True),
        ("accuracy>=0.2", ("--require-interval",), True),
    ],
)
def test_gates(folders, capsys, limits: str, more: tuple[str, ...], met: bool) -> None:
    code = evaluate(folders, "--require", limits, *more)
    assert code == (exit_codes.OK if met else exit_codes.GATE_NOT_MET)
    assert ("not met: " in capsys.readouterr().err) != met


def test_a_gate_may_ask_for_the_whole_interval(folders, capsys) -> None:
    figure = result(folders, capsys)["summary"]["dice"]
    between = (figure["low"] + figure["mean"]) / 2
    assert evaluate(folders, "--require", f"dice>={between}") == exit_codes.OK
    assert evaluate(folders, "--require", f"dice>={between}", "--require-interval") == exit_codes.GATE_NOT_MET
    assert "its interval's lower end is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--require", "dice"), "isn't a condition"),
        (("--require", "dice>=1e"), "isn't a condition"),
        (("--require", "dlce>=0.5"), "isn't measured here"),
        (("--require", "brier<=0.5"), "isn't measured here"),
        (("--strict",), "so --strict would do nothing"),
        (("--tta", "--min-area", "5"), "so --tta, --min-area would do nothing"),
        (("--protocol", "mean"), "known: per_image"),
        (("--interval", "normal"), "bca or percentile"),
        (("--pixel-size", "0"), "a pixel has a size"),
        (("--pixel-size", "nan"), "a pixel has a size"),
        (("--tolerance", "-1"), "lengths: 0 or more"),
        (("--tolerance", "inf"), "lengths: 0 or more"),
        (("--resamples", "1000000000"), "resamples"),
        (("--dataset", "kvasir"), "no weights are run"),
        (("--group", "(a)(b)"), "needs one"),
    ],
)
def test_wrong_usage(folders, capsys, more: tuple[str, ...], words: str) -> None:
    assert evaluate(folders, *more) == exit_codes.USAGE
    assert words in capsys.readouterr().err


def test_broken_files_are_named_and_the_rest_is_scored(folders, capsys) -> None:
    pred, truth = folders
    write(pred / "m03.png", np.zeros((30, 40), np.uint8))
    (pred / "m04.png").write_bytes(b"no picture")
    (truth / "m05_mask.png").write_bytes((truth / "m05_mask.png").read_bytes()[:-30])
    write(truth / "m06_mask_1.png", np.zeros((10, 10), np.uint8))
    found = result(folders, capsys, code=exit_codes.SOME_FAILED)
    assert len(found["images"]) == found["summary"]["dice"]["n"] == 8
    reasons = {one["name"]: one["reason"] for one in found["failed"]}
    assert list(reasons) == ["m03", "m04", "m05", "m06"]
    assert "the prediction is 40×30 px, the truth 41×30 px" in reasons["m03"]
    assert "m04.png: not an image" in reasons["m04"]
    assert "m05_mask.png: truncated" in reasons["m05"]
    assert "no union" in reasons["m06"]


def test_grey_halos_are_cut_at_127_and_said(folders, capsys) -> None:
    pred, _ = folders
    values = np.zeros((30, 41), np.uint8)
    values[:10], values[10, :20], values[11, :20] = 255, 128, 127
    values[14] = np.arange(41)
    write(pred / "m07.png", values)
    before = capsys.readouterr()
    assert evaluate(folders, "--json") == 0
    after = capsys.readouterr()
    image = json.loads(after.out)["images"][7]
    assert image["tp"] + image["fp"] == 10 * 41 + 20
    assert "note: 1 mask files hold values besides 0 and 255, cut at 127" in after.err
    assert before.err == ""


def test_classes_are_warned_of_by_name(folders, capsys) -> None:
    pred, _ = folders
    write(pred / "m08.png", np.arange(30 * 41, dtype=np.uint8).reshape(30, 41) % 3)
    assert evaluate(folders) == 0
    assert "m08.png: its values are 0, 1, 2, neither 0/1 nor 0/255" in capsys.readouterr().err


def test_many_masks_of_classes_do_not_flood_the_terminal(tmp_path, capsys) -> None:
    folders = tmp_path / "pred", tmp_path / "truth"
    for i in range(17):
        write(folders[0] / f"m{i:02}.png", np.arange(20, dtype=np.uint8).reshape(4, 5) % 3)
        write(folders[1] / f"m{i:02}.png", grey(np.eye(4, 5)))
    assert evaluate(folders) == exit_codes.OK
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 11
    assert warnings[-1] == "warning: and 7 more mask files with such values"


def test_all_broken(folders, capsys) -> None:
    for path in folders[0].iterdir():
        path.write_bytes(b"no picture")
    assert evaluate(folders) == exit_codes.NOTHING_DONE
    assert "none of 12 images could be scored" in capsys.readouterr().err


def test_files_without_a_partner(folders, capsys) -> None:
    (folders[0] / "m03.png").rename(folders[0] / "x.png")
    assert evaluate(folders) == exit_codes.NOTHING_DONE
    err = capsys.readouterr().err
    assert "unpaired: prediction x.png\nunpaired: truth m03_mask.png\nerror: 1 predictions and 1 truths" in err
    found = result(folders, capsys, "--allow-unpaired")
    assert len(found["images"]) == 11
    assert found["unpaired"] == {"predictions": ["x.png"], "truths": ["m03_mask.png"]}


def test_empty_folders_and_another_set(folders, capsys, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert evaluate((tmp_path / "empty", folders[1])) == exit_codes.NOTHING_DONE
    write(tmp_path / "others/p01.png", np.zeros((3, 3), np.uint8))
    assert evaluate((tmp_path / "others", folders[1])) == exit_codes.NOTHING_DONE
    err = capsys.readouterr().err
    assert "empty holds no mask" in err
    assert "are the predictions of another set?" in err


def test_the_csv_holds_the_same_rows_and_can_be_compared_with(folders, capsys, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write(folders[0] / "=1+1.png", np.zeros((5, 5), np.uint8))
    write(folders[1] / "=1+1_mask.png", np.zeros((5, 5), np.uint8))
    found = result(folders, capsys, "--csv", str(path))
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["./=1+1", *(f"m{i:02d}" for i in range(12))]
    for row, image in zip(rows, found["images"]):
        for key in ("dice", "hd95", "tp"):
            assert row[key] == ("" if image[key] is None else str(image[key]))
    again = result(folders, capsys, "--compare", str(path))["comparison"]
    assert again["images"] == 13
    assert {one["equal"] for one in again["metrics"].values()} == {13}


@pytest.mark.parametrize("option", ["--csv", "--report"])
def test_no_image_is_replaced(folders, capsys, option: str) -> None:
    image = folders[1] / "m03_mask.png"
    before = image.read_bytes()
    assert evaluate(folders, option, str(image)) == exit_codes.USAGE
    assert f"error: {option} {image} has an image's name" in " ".join(capsys.readouterr().err.split())
    assert image.read_bytes() == before


def test_a_table_that_a_spreadsheet_saved_can_be_compared_with(folders, capsys, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    result(folders, capsys, "--csv", str(path))
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert result(folders, capsys, "--compare", str(path))["comparison"]["images"] == 12


def _with(lines: list[str], column: str, value: str) -> list[str]:
    """The table with another value in a column of its first row."""
    cells = zip(lines[0].split(","), lines[1].split(","))
    return [lines[0], ",".join(value if name == column else cell for name, cell in cells), *lines[2:]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: [], "is no per-image table"),
        (lambda lines: [*lines[:4], lines[4].replace(",found,", ",found,x")], "is no per-image table"),
        (lambda lines: [lines[0], lines[1].replace("m00,0.0", "m00,inf"), *lines[2:]], "is no per-image table"),
        (lambda lines: [lines[0], lines[1].replace("m00,0.0", "m00,nan"), *lines[2:]], "is no per-image table"),
        (lambda lines: _with(lines, "tp", "9" * 400), "is no per-image table"),
        (lambda lines: _with(lines, "height", "-3"), "is no per-image table"),
        (lambda lines: [*lines, lines[3]], "has an image twice"),
    ],
)
def test_a_spoilt_table_is_not_compared_with(folders, capsys, tmp_path: Path, spoil, words: str) -> None:
    path = tmp_path / "rows.csv"
    result(folders, capsys, "--csv", str(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    spoilt = spoil(lines)
    assert spoilt != lines
    path.write_text("".join(f"{line}\n" for line in spoilt), encoding="utf-8")
    assert evaluate(folders, "--compare", str(path)) == exit_codes.NOTHING_DONE
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--csv", "--report"])
@pytest.mark.parametrize(("other", "value"), [("--compare", "{}"), ("--group", "{}:patient")])
def test_no_table_that_is_read_is_replaced(folders, capsys, tmp_path: Path, option, other, value) -> None:
    table = tmp_path / "table.csv"
    if other == "--compare":
        result(folders, capsys, "--csv", str(table))
    else:
        table.write_text(
            "image,patient\n" + "".join(f"m{i:02d}.png,{i // 2}\n" for i in range(12)), encoding="utf-8"
        )
    before = table.read_bytes()
    again = tmp_path / "pred" / ".." / "table.csv"
    assert evaluate(folders, other, value.format(table), option, str(again)) == exit_codes.USAGE
    assert f"{option} {again} is the file of {other} too" in " ".join(capsys.readouterr().err.split())
    assert table.read_bytes() == before


def test_the_table_and_the_report_are_two_files(folders, capsys, tmp_path: Path) -> None:
    both = str(tmp_path / "scores")
    assert evaluate(folders, "--csv", both, "--report", both) == exit_codes.USAGE
    assert f"--report {both} is the file of --csv too" in " ".join(capsys.readouterr().err.split())
    assert not Path(both).exists()


def test_a_gate_on_an_interval_that_one_image_cannot_have(tmp_path: Path, capsys) -> None:
    for side in ("pred", "truth"):
        write(tmp_path / side / "a.png", np.full((5, 5), 255, np.uint8))
    pair = tmp_path / "pred", tmp_path / "truth"
    assert evaluate(pair, "--require", "dice>=0.5", "--require-interval") == exit_codes.GATE_NOT_MET
    assert "dice>=0.5: 1 has no interval here" in capsys.readouterr().err


def test_comparing_with_a_folder(folders, capsys, tmp_path: Path) -> None:
    perfect = tmp_path / "perfect"
    for path in folders[1].iterdir():
        write(perfect / path.name.replace("_mask", ""), np.asarray(Image.open(path)))
    found = result((perfect, folders[1]), capsys, "--compare", str(folders[0]))
    dice = found["comparison"]["metrics"]["dice"]
    assert dice["worse"] == 0
    assert dice["better"] >= 8
    assert dice["low"] <= dice["mean"] <= dice["high"]
    assert dice["p_value"] < 0.05
    assert dice["effect"] == 1


def test_a_mask_of_the_other_set_that_cannot_be_read_is_a_failure(folders, capsys, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for path in folders[0].iterdir():
        write(other / path.name, np.asarray(Image.open(path)))
    (other / "m04.png").write_bytes(b"nonsense")
    found = result(folders, capsys, "--compare", str(other), code=exit_codes.SOME_FAILED)
    assert (len(found["images"]), found["comparison"]["images"], found["failed"]) == (12, 11, [])


def test_groups_widen_the_interval(folders, capsys) -> None:
    alone = result(folders, capsys)["summary"]["accuracy"]
    grouped = result(folders, capsys, "--group", r"m(\d)")["summary"]["accuracy"]
    assert alone["mean"] == grouped["mean"]
    assert (alone["low"], alone["high"]) != (grouped["low"], grouped["high"])


def test_lengths_in_millimetres(folders, capsys) -> None:
    pixels, millimetres = (
        result(folders, capsys, *more)
        for more in (("--tolerance", "2"), ("--pixel-size", "0.5", "--tolerance", "1"))
    )
    assert millimetres["settings"]["unit"] == "mm"
    assert millimetres["summary"]["hd95"]["mean"] == pytest.approx(pixels["summary"]["hd95"]["mean"] / 2)
    assert millimetres["summary"]["nsd"]["mean"] == pytest.approx(pixels["summary"]["nsd"]["mean"])


def test_a_closed_pipe_is_no_error(folders) -> None:
    pred, truth = folders
    command = f"{sys.executable} -m ascseg_cli evaluate -q --json --pred {pred} --truth {truth} | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
