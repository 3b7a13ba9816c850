"""`ascseg check` as somebody types it: what stdout carries, what stderr says, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ascseg_cli import cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from broken import blot, draw_broken, picture, save

Run = Callable[..., tuple[int, str, str]]
PRACTICE = Path(__file__).resolve().parents[2] / "examples" / "practice"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ascseg check …` on 80 columns; returns exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def ascseg(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(["check", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return ascseg


def test_a_good_folder_is_one_page_and_exit_code_0(run: Run) -> None:
    code, out, _ = run(PRACTICE)
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    lines = {line.split()[0]: line for line in out.splitlines() if line[:1].strip()}
    assert lines["usable"].split()[1:] == ["12", "of", "12"]
    assert lines["copies"].split()[1:] == ["none"]
    assert "8 train, 4 validation, 0 test" in lines["split"]
    assert "Problems" not in out


def test_problems_are_named_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(draw_broken(tmp_path / "data"))
    assert code == 1
    assert "7 of 13" in out
    assert "  masks/classes.png: its values are 0, 2" in out
    assert "  images/alone.png: no mask of this name in masks/" in out


def test_json_is_one_object_alone_on_stdout(run: Run, tmp_path: Path) -> None:
    code, out, err = run(draw_broken(tmp_path / "data"), "--json", "--quiet")
    facts = json.loads(out)
    assert code == 1
    assert err == ""
    assert (facts["layout"], facts["pairs"], facts["usable"]) == ("plain", 13, 7)


def test_nothing_usable_is_exit_code_3(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture(1))
    save(tmp_path / "masks/a.png", blot(30, 80))
    assert run(tmp_path)[0] == 3
    code, _, err = run(tmp_path / "gone")
    assert code == 3
    assert "is not a folder" in err


def test_a_clean_copy_is_written_and_the_code_is_the_copys(run: Run, tmp_path: Path) -> None:
    root = draw_broken(tmp_path / "data")
    code, _, err = run(root, "--fix", tmp_path / "clean")
    assert code == 1
    assert "left out: " in err
    assert "8 pairs -> " in err
    assert "1 mask united from several, 5 pairs left out, 2 files without a partner left out" in err
    assert run(tmp_path / "clean", "--split-file", tmp_path / "clean/split.csv")[0] == 0
    code, _, err = run(root, "--fix", tmp_path / "clean")
    assert code == 2
    assert "isn't an empty folder" in err


def test_a_file_without_a_partner_is_left_out_of_the_copy_and_of_exit_code_0(run: Run, tmp_path: Path) -> None:
    for name in ("a", "alone"):
        save(tmp_path / f"data/images/{name}.png", picture(1))
    save(tmp_path / "data/masks/a.png", blot())
    code, _, err = run(tmp_path / "data", "--fix", tmp_path / "clean")
    assert code == 1
    assert "1 file without a partner left out" in err
    assert run(tmp_path / "clean")[0] == 0


def test_no_copy_is_written_where_nothing_would_be_in_it(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "data/images/a.png", picture(1))
    save(tmp_path / "data/masks/a.png", blot(30, 80))
    code, _, err = run(tmp_path / "data", "--fix", tmp_path / "clean")
    assert code == 3
    assert "error: no pair can be used or mended" in err
    assert "masks/a.png: 80×30 px" in " ".join(err.split())
    assert not (tmp_path / "clean").exists()


def test_a_quiet_clean_copy_says_nothing(run: Run, tmp_path: Path) -> None:
    code, _, err = run(PRACTICE, "--quiet", "--fix", tmp_path / "clean")
    assert (code, err) == (0, "")
    assert (tmp_path / "clean" / "split.csv").is_file()


def test_splits_by_file_and_by_group_are_counted(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    table.write_text("image,part\nspot_1,train\nspot_2.jpg,test\n", encoding="utf-8")
    facts = json.loads(run(PRACTICE, "--json", "--split-file", table)[1])
    assert (facts["split"]["train"], facts["split"]["validation"], facts["split"]["test"]) == (1, 0, 1)
    facts = json.loads(run(PRACTICE, "--json", "--group-by", r"(spot)_")[1])
    assert sorted((facts["split"]["train"], facts["split"]["validation"], facts["split"]["test"])) == [0, 0, 12]
    code, _, err = run(PRACTICE, "--group-by", "spot")
    assert code == 2
    assert "0 groups in parentheses" in err


def test_control_characters_of_a_name_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture(1))
    save(tmp_path / "masks/a.png", blot())
    save(tmp_path / "images/b\x1b[31m.png", picture(2))
    code, out, _ = run(tmp_path)
    assert code == 1
    assert "\x1b" not in out
    assert r"images/b\x1b[31m.png" in out


OFFICIAL = {  # image, mask, and what the download holds besides, as far as its readers know
    "isic2017": (
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data/ISIC_1.jpg",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png",
        ["ISIC-2017_Training_Data/ISIC-2017_Training_Data/ISIC_1_superpixels.png"],
        [
            "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
            "ISIC-2017_Training_Part3_GroundTruth.csv",
        ],
    ),
    "isic2018": (
        "ISIC2018_Task1-2_Training_Input/ISIC_1.jpg",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_1_segmentation.png",
        ["ISIC2018_Task2_Training_GroundTruth_v3/ISIC_1_attribute_globules.png"],
        ["ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt", "ISIC2018_Task1-2_Training_Input/LICENSE.txt"],
    ),
    "ph2": (
        "PH2Dataset/PH2 Dataset images/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp",
        "PH2Dataset/PH2 Dataset images/IMD002/IMD002_lesion/IMD002_lesion.bmp",
        ["PH2Dataset/PH2 Dataset images/IMD002/IMD002_roi/IMD002_R1_Label4.bmp"],
        ["PH2Dataset/PH2_dataset.txt", "PH2Dataset/PH2_dataset.xlsx"],
    ),
    "kvasir": (
        "kvasir-seg/Kvasir-SEG/images/cju0.jpg",
        "kvasir-seg/Kvasir-SEG/masks/cju0.jpg",
        [],
        ["kvasir-seg/Kvasir-SEG/kavsir_bboxes.json", "kvasir-seg/__MACOSX/._images"],
    ),
    "busi": (
        "archive/Dataset_BUSI_with_GT/benign/benign (1).png",
        "archive/Dataset_BUSI_with_GT/benign/benign (1)_mask.png",
        ["archive/Dataset_BUSI_with_GT/benign/benign (1)_mask_1.png"],
        ["archive/Dataset_BUSI_with_GT/normal/Thumbs.db"],
    ),
}


@pytest.mark.parametrize("layout", OFFICIAL)
def test_what_official_downloads_hold_besides_is_no_problem(run: Run, tmp_path: Path, layout: str) -> None:
    image, mask, pictures, others = OFFICIAL[layout]
    save(tmp_path / image, picture(1))
    for name in (mask, *pictures):
        save(tmp_path / name, blot().astype("uint8") * 255)
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    code, out, _ = run(tmp_path, "--json")
    facts = json.loads(out)
    assert (facts["layout"], facts["pairs"], facts["usable"], facts["remarks"]) == (layout, 1, 1, [])
    assert code == 0


def test_a_folder_of_an_unknown_form_says_what_it_holds(run: Run, tmp_path: Path) -> None:
    save(tmp_path / "imgs/a.png", picture(1))
    save(tmp_path / "labels/a.png", blot())
    code, _, err = run(tmp_path)
    assert code == 3
    assert "images lie in labels/ (1), imgs/ (1)" in err
    assert "put your own into images/ and masks/" in err
