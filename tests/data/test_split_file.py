"""Splits that the user states, by file or by group: each image lands where the text says, or one line says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascseg_cli.data.grouping import group
from ascseg_cli.data.layouts import Dataset
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import SplitRule, split
from ascseg_cli.data.split_file import read_split
from ascseg_cli.errors import DataError, UsageError

ROOT = Path("set")


def _pairs(*names: str) -> tuple[Pair, ...]:
    return tuple(Pair(ROOT / "images" / name, (ROOT / "masks" / name,)) for name in names)


def _table(folder: Path, text: str, name: str = "split.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def _names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.image.relative_to(ROOT / "images").as_posix() for pair in pairs]


def test_a_file_says_each_part_by_name_stem_or_path(tmp_path: Path) -> None:
    text = "\ufeffpart,image\ntrain,a.png\nvalidation,b\ntest,images\\deep\\c.png\ntrain,./deep/d.png\n\n"
    parts = read_split(_table(tmp_path, text), _pairs("a.png", "b.jpg", "deep/c.png", "deep/d.png"))
    assert _names(parts.train) == ["a.png", "deep/d.png"]
    assert _names(parts.validation) == ["b.jpg"]
    assert _names(parts.test) == ["deep/c.png"]
    assert parts.rule == "as split.csv says"


def test_names_that_several_images_share_need_their_folder(tmp_path: Path) -> None:
    pairs = _pairs("x/a.png", "y/a.png")
    with pytest.raises(DataError, match=r"line 2: 'a\.png' means 2 images: add its folder"):
        read_split(_table(tmp_path, "image,part\na.png,train\n"), pairs)
    parts = read_split(_table(tmp_path, "image,part\nx/a.png,train\ny/a,test\n"), pairs)
    assert (_names(parts.train), _names(parts.test)) == (["x/a.png"], ["y/a.png"])


def test_what_split_writes_is_read_back_alike(tmp_path: Path) -> None:
    pairs = _pairs(*(f"{folder}/i,{i}.png" for folder in "xy" for i in range(20)), "é.png")
    written = split(pairs, SplitRule())
    again = read_split(_table(tmp_path, written.csv()), pairs)
    assert again.sha256() == written.sha256()
    assert (again.train, again.validation, again.test) == (written.train, written.validation, written.test)
    assert "y/i" in written.csv()


def test_images_that_the_file_does_not_name_are_in_no_part(tmp_path: Path) -> None:
    parts = read_split(_table(tmp_path, "image,part\na.png,train\n"), _pairs("a.png", "b.png", "c.png"))
    assert parts.counts() == {"train": 1, "validation": 0, "test": 0}
    assert parts.rule == "as split.csv says; 2 images that it doesn't name left out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,part\na.png,val\n", r"line 2: part 'val' is none of train, validation, test"),
        ("image,part\nz.png,train\n", r"line 2: 'z\.png' is no image with a mask here"),
        ("image,part\na.png,train\na,test\n", r"a\.png is in two parts, train \(line 2\) and test \(line 3\)"),
        ("name,part\na.png,train\n", "has no column 'image'; its columns are name, part"),
        ("image,part\na.png\n", "line 2: 1 cells, the header has 2"),
        ('image,part\n"a.png,train\n', "not CSV"),
        ("", "its columns are none"),
    ],
)
def test_files_that_say_no_split_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_split(_table(tmp_path, text), _pairs("a.png", "b.png"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_split(tmp_path / "gone.csv", _pairs("a.png"))
    (tmp_path / "bytes.csv").write_bytes(b"image,part\n\xff\xfe,train\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_split(tmp_path / "bytes.csv", _pairs("a.png"))


def test_a_pattern_groups_by_path() -> None:
    pairs = group(_pairs("p1/a.png", "p1/b.png", "p22/a.png"), r"(p\d+)/", ROOT)
    assert [pair.group for pair in pairs] == ["p1", "p1", "p22"]


def test_a_column_groups_by_image(tmp_path: Path) -> None:
    table = _table(tmp_path, "isic_id,age,patient\na,5,P1\nb.png,6,P2\nelsewhere,1,P1\nc,7,P1\n", "meta.csv")
    pairs = group(_pairs("a.png", "b.png", "c.png"), f"{table}:patient", ROOT)
    assert [pair.group for pair in pairs] == ["P1", "P2", "P1"]


def test_groups_are_divided_by_their_own_name_and_official_parts_do_not_count() -> None:
    pairs = tuple(
        Pair(ROOT / f"images/p{i % 12}_{i}.png", (), part="train", group=None) for i in range(60)
    )  # fmt: skip
    parts = Dataset(ROOT, "plain", pairs, ()).split(group_by=r"(p\d+)_")
    for part in parts.counts():
        assert {SplitRule().part(pair.stem.split("_")[0]) for pair in getattr(parts, part)} <= {part}
    assert sum(parts.counts().values()) == 60
    assert parts.rule == "sha256 of the group: test < 0.20, validation < 0.30"


@pytest.mark.parametrize(
    ("by", "kind", "message"),
    [
        ("(p", UsageError, "is no regular expression"),
        ("p.", UsageError, "has 0 groups in parentheses; it needs one"),
        ("(p)(.)", UsageError, "has 2 groups"),
        (r"(p\d)/", DataError, r"1 of 2 images have no group by .*, the first is .*b\.png"),
        ("gone.csv:patient", DataError, "can't be read"),
    ],
)
def test_groupings_that_fail_say_why(by: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        group(_pairs("p1/a.png", "b.png"), by, ROOT)


def test_an_image_in_two_groups_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path, "image,patient\na,P1\na.png,P2\n", "meta.csv")
    with pytest.raises(DataError, match=r"puts a\.png into two groups, P1 and P2"):
        group(_pairs("a.png"), f"{table}:patient", ROOT)


def test_a_file_and_groups_exclude_each_other(tmp_path: Path) -> None:
    dataset = Dataset(ROOT, "plain", _pairs("a.png"), ())
    with pytest.raises(UsageError, match="by file or by group, not both"):
        dataset.split(split_file=_table(tmp_path, "image,part\n"), group_by="(.)")
