"""What a look through a data set finds: on a folder drawn with every mistake, and on masks of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from broken import blot, draw_broken, exif, halos, palette, picture, save
from pictures import by_opencv, by_pillow

from ascseg_cli.data.decode import read_samples
from ascseg_cli.data.inspection import inspect
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.mask_values import mask_kind
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.report import Report, look_through

USABLE = {"fine", "ones", "empty", "palette", "halo", "two", "copy"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    dataset = open_dataset(draw_broken(tmp_path_factory.mktemp("broken")))
    return look_through(dataset, dataset.split(), 2)


def test_good_pairs_are_told_from_bad_ones(report: Report) -> None:
    assert {one.pair.stem for one in report.usable} == USABLE
    assert len(report.facts) == 13


def test_every_problem_names_its_file_and_its_cause(report: Report) -> None:
    found = {remark.path.name: remark.words for remark in report.problems}
    expected = {
        "alone.png": "no mask of this name in masks/",
        "stray.png": "no image of this name in images/",
        "classes.png": "its values are 0, 2, neither 0/1 nor 0/255: save one class as 0/255 grey",
        "colours.png": "it has several colours: several classes? save one as 0/255 grey",
        "small.png": "80×30 px, its image 80×60",
        "turned.jpg": "EXIF turns the image (orientation 6), but its mask isn't turned",
    }
    assert expected.items() <= found.items()
    assert "truncated PNG" in found["cut.png"]
    assert "neither dark nor bright: is it a mask?" in found["grey.png"]
    assert len(found) == len(expected) + 2


def test_kinds_sizes_and_shares_are_counted(report: Report) -> None:
    kinds = report.kinds()
    assert kinds["0/255"] == 7  # fine, small, two twice, cut, turned, copy
    assert (kinds["0/1"], kinds["empty"], kinds["palette"], kinds["grey halos"]) == (1, 1, 1, 1)
    assert report.sizes() == {(80, 60): 11, (60, 80): 1}
    assert report.formats() == {"PNG": 10, "JPEG": 2}
    assert report.without_foreground() == 1
    truth = blot()
    both = (truth | np.roll(truth, 12, axis=0)).mean()
    assert report.shares()[-1] == pytest.approx(both)
    assert report.shares()[0] == pytest.approx(truth.mean(), abs=0.01)


def test_the_mirrored_copy_is_found(report: Report) -> None:
    (copy,) = report.copies
    assert {path.stem for path in copy.images} == {"fine", "copy"}
    assert not copy.exact
    parts = {pair.image: part for part in report.split.counts() for pair in getattr(report.split, part)}
    assert copy.parts == tuple(parts[image] for image in copy.images)
    assert copy.across == (copy.parts[0] != copy.parts[1])


def test_the_json_holds_every_finding(report: Report) -> None:
    facts = report.facts_json()
    assert (facts["pairs"], facts["usable"], facts["several_masks"]) == (13, 7, 1)
    assert {"file": "images/alone.png", "words": "no mask of this name in masks/", "problem": True} in facts[
        "remarks"
    ]
    assert facts["foreground"]["images_with"] + facts["foreground"]["images_without"] == 7
    assert facts["split"]["sha256"] == report.split.sha256()


def _kind(data: bytes) -> tuple[str, bool]:
    kind = mask_kind(read_samples(data))
    return kind.name, bool(kind.problem)


MASK = blot()
RED = np.stack([MASK * 255, MASK * 0, MASK * 0], axis=2).astype(np.uint8)
SPECK = np.zeros((60, 80, 3), np.uint8)
SPECK[21:26, 33:40] = 255


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (by_pillow(MASK, "PNG"), ("0/255", False)),  # one bit a pixel
        (by_pillow(MASK.astype(np.uint8), "PNG"), ("0/1", False)),
        (by_pillow(MASK * np.uint8(255), "BMP"), ("0/255", False)),
        (by_opencv(MASK * np.uint16(65535), ".png"), ("0/65535", False)),
        (by_opencv(MASK * np.uint16(1), ".png"), ("0/1", False)),
        (by_pillow(palette(MASK), "PNG"), ("palette", False)),
        (by_pillow(palette(MASK * 2), "PNG"), ("classes", True)),
        (by_pillow(MASK * np.uint8(127), "PNG"), ("classes", True)),
        (by_pillow(MASK * np.uint8(200), "PNG"), ("other levels", False)),
        (by_pillow(MASK * np.uint8(255) - np.roll(MASK, 20, 0) * np.uint8(120), "PNG"), ("classes", True)),
        (by_pillow(RED, "PNG"), ("0/255", False)),
        (by_pillow(RED | RED[::-1, :, ::-1], "PNG"), ("colours", True)),
        (halos(MASK), ("grey halos", False)),
        (by_pillow(SPECK, "JPEG", quality=90), ("grey halos", False)),  # in colour, as Kvasir-SEG's masks are
        (by_pillow(picture(3)[:, :, 0], "PNG"), ("grey", True)),
        (by_pillow(MASK * np.uint8(0), "PNG"), ("empty", False)),
        (by_pillow(MASK * np.uint8(0) + np.uint8(255), "PNG"), ("0/255", False)),
    ],
)
def test_masks_of_every_kind(data: bytes, expected: tuple[str, bool]) -> None:
    assert _kind(data) == expected


def test_a_half_turn_by_exif_is_only_remarked_on(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", picture(1), exif=exif(3))
    save(tmp_path / "a.png", MASK * np.uint8(255))
    facts = inspect(Pair(tmp_path / "a.jpg", (tmp_path / "a.png",)))
    assert facts.usable
    assert not facts.turn_masks
    assert ["orientation 3" in remark.words for remark in facts.remarks] == [True]


def test_a_mask_that_was_turned_with_its_image_is_fine(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", picture(1), exif=exif(6))
    save(tmp_path / "a.png", np.rot90(MASK, -1) * np.uint8(255))
    facts = inspect(Pair(tmp_path / "a.jpg", (tmp_path / "a.png",)))
    assert facts.size == (60, 80)
    assert facts.usable
    assert not facts.turn_masks


def test_images_that_a_split_does_not_name_are_in_no_part(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", picture(1))
        save(tmp_path / "masks" / f"{name}.png", MASK)
    (tmp_path / "split.csv").write_text("image,part\na,train\n", encoding="utf-8")
    dataset = open_dataset(tmp_path)
    (copy,) = look_through(dataset, dataset.split(split_file=tmp_path / "split.csv"), 1).copies
    assert copy.exact
    assert copy.parts == ("train", "")
    assert not copy.across
