"""Layouts are recognised by themselves, pair what belongs together and name what found no partner."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import DataError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _found(root: Path) -> dict[str, tuple[list[str], str | None]]:
    return {p.image.name: ([m.name for m in p.masks], p.part) for p in open_dataset(root).pairs}


def test_isic2017_keeps_official_parts_and_passes_over_its_extras(tmp_path: Path) -> None:
    _touch(
        tmp_path / "ISIC",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data/ISIC_1.jpg",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data/ISIC_1_superpixels.png",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png",
        "ISIC-2017_Validation_Data/ISIC_2.jpg",
        "ISIC-2017_Validation_Part1_GroundTruth/ISIC_2_segmentation.png",
        "ISIC-2017_Test_v2_Data/ISIC_3.jpg",
        "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_3_segmentation.png",
        "ISIC-2017_Test_v2_Data/ISIC_4.jpg",
    )
    assert _found(tmp_path) == {
        "ISIC_1.jpg": (["ISIC_1_segmentation.png"], "train"),
        "ISIC_2.jpg": (["ISIC_2_segmentation.png"], "validation"),
        "ISIC_3.jpg": (["ISIC_3_segmentation.png"], "test"),
    }
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "isic2017"
    assert [(u.path.name, u.reason) for u in dataset.unpaired] == [
        ("ISIC_4.jpg", "no ISIC_4_segmentation.png among the test masks")
    ]


def test_isic2018_is_split_by_name(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "ISIC2018_Task1-2_Training_Input/ISIC2018_Task1-2_Training_Input/ISIC_1.jpg",
        "ISIC2018_Task1-2_Training_Input/ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_1_segmentation.png",
    )
    assert _found(tmp_path) == {"ISIC_1.jpg": (["ISIC_1_segmentation.png"], None)}
    assert open_dataset(tmp_path).layout == "isic2018"


def test_ph2_passes_over_roi_folders(tmp_path: Path) -> None:
    base = "PH2Dataset/PH2 Dataset images/IMD002/IMD002"
    _touch(tmp_path, f"{base}_Dermoscopic_Image/IMD002.bmp", f"{base}_lesion/IMD002_lesion.bmp")
    _touch(tmp_path, f"{base}_roi/IMD002_R1_Label6.bmp", "PH2Dataset/PH2_dataset.txt")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "ph2"
    assert _found(tmp_path) == {"IMD002.bmp": (["IMD002_lesion.bmp"], None)}
    assert dataset.unpaired == ()


def test_busi_unites_masks_and_reports_strays(tmp_path: Path) -> None:
    folder = "Dataset_BUSI_with_GT/benign"
    _touch(tmp_path, *(f"{folder}/benign (4){end}.png" for end in ("", "_mask", "_mask_1")))
    _touch(tmp_path, f"{folder}/benign (5).png", f"{folder}/benign (6)_mask.png")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "busi"
    assert _found(tmp_path) == {"benign (4).png": (["benign (4)_mask.png", "benign (4)_mask_1.png"], None)}
    assert {u.path.name for u in dataset.unpaired} == {"benign (5).png", "benign (6)_mask.png"}


@pytest.mark.parametrize("inside", ["", "Kvasir-SEG", "kvasir-seg/Kvasir-SEG"])
def test_kvasir_reads_parts_only_from_prefixes_that_all_have(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "Kvasir"
    names = ["train_1", "validation_2"]
    _touch(root / inside, *(f"{kind}/{name}.jpg" for kind in ("images", "masks") for name in names))
    assert open_dataset(root).layout == "kvasir"
    assert {name: part for name, (_, part) in _found(root).items()} == {
        "train_1.jpg": "train", "validation_2.jpg": "validation",
    }  # fmt: skip
    _touch(root / inside, "images/cju0.jpg", "masks/cju0.jpg")
    assert {part for _, part in _found(root).values()} == {None}


def test_real_kvasir_names_fall_by_its_own_thresholds(tmp_path: Path) -> None:
    names = [f"cju{i:03d}" for i in range(300)]
    _touch(tmp_path / "Kvasir-SEG", *(f"{kind}/{name}.jpg" for kind in ("images", "masks") for name in names))
    counts = open_dataset(tmp_path).split().counts()
    assert 15 <= counts["test"] <= 45
    assert 15 <= counts["validation"] <= 45


@pytest.mark.parametrize(("image", "mask"), [("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")])
def test_plain_pairs_names_that_systems_store_differently(tmp_path: Path, image: str, mask: str) -> None:
    """Linux composes an accent with its letter, macOS stores the two apart."""
    _touch(tmp_path, f"images/{image}/{image}.png", f"masks/{mask}/{mask}_mask.png")
    assert _found(tmp_path) == {f"{image}.png": ([f"{mask}_mask.png"], None)}
    assert open_dataset(tmp_path).unpaired == ()


def test_plain_pairs_by_stem_suffix_and_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "images/a.png", "images/deep/a.jpg", "images/odd_mask.png", "images/b.png", "images/c.png")
    _touch(tmp_path, "images/c.jpg", "images/._a.png", "images/notes.txt", "__MACOSX/images/a.png")
    _touch(tmp_path, "masks/a_segmentation.png", "masks/deep/a.png", "masks/odd_mask.png", "masks/c.png")
    _touch(tmp_path, "masks/z.png", "masks/a_mask_1.png")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "plain"
    assert {
        str(p.image.relative_to(tmp_path)): [str(m.relative_to(tmp_path)) for m in p.masks] for p in dataset.pairs
    } == {
        str(Path("images/a.png")): [str(Path("masks/a_mask_1.png")), str(Path("masks/a_segmentation.png"))],
        str(Path("images/deep/a.jpg")): [str(Path("masks/deep/a.png"))],
        str(Path("images/odd_mask.png")): [str(Path("masks/odd_mask.png"))],
    }
    assert {(u.path.name, u.reason) for u in dataset.unpaired} == {
        ("b.png", "no mask of this name in masks/"),
        ("c.png", "several images share this name"),
        ("c.jpg", "several images share this name"),
        ("z.png", "no image of this name in images/"),
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["b/a.png", "b/c.png", "a.png"],
            r"holds no layout of images and masks .*; images lie in b/ \(2\), \./ \(1\)",
        ),
        (["a.txt"], "holds no layout of images and masks .*; no file in it is an image"),
        (["images/a.png", "masks/b.png"], r"looks like plain, but no image in it has a mask; b\.png: no image"),
        (
            ["PH2/IMD1/IMD1_Dermoscopic_Image/IMD1.bmp", "b/benign/benign (1).png"],
            r"several data sets \(ph2 and busi\)",
        ),
    ],
)
def test_folders_that_hold_no_single_data_set_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(_touch(tmp_path, *names))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        open_dataset(tmp_path / "gone")
