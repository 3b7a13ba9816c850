"""The split rule against its own words, and the parts of the development data against their expected counts."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import SplitRule, position, split
from ascseg_cli.errors import DataError

EXPECTED = {  # train, validation, test
    "ISIC2018": (1784, 278, 0),
    "ISIC2017": (2000, 150, 0),
    "PH2": (160, 20, 0),
    "Kvasir": (800, 100, 0),
}


def _pair(name: str, part: str | None = None, group: str | None = None) -> Pair:
    return Pair(Path("images", f"{name}.png"), (Path("masks", f"{name}.png"),), part, group)


@pytest.mark.parametrize("name", EXPECTED)
def test_parts_have_the_expected_counts(shared_data: Path, name: str) -> None:
    dataset = open_dataset(shared_data / name)
    assert tuple(dataset.split().counts().values()) == EXPECTED[name]
    assert dataset.unpaired == ()


def test_busi_counts_lesions_and_normal_images(shared_data: Path) -> None:
    parts = open_dataset(shared_data / "BUSI").split()
    lesions, normal = (
        tuple(sum(p.stem.startswith("normal") is wanted for p in getattr(parts, part)) for part in parts.counts())
        for wanted in (False, True)
    )
    assert lesions == (455, 54, 0)
    assert normal == (27, 2, 11)


@pytest.mark.parametrize("name", ["a", "IMD002", "ISIC_0000000", "benign (1)", "용종 12", "é"])
def test_position_is_the_rule_written_out(name: str) -> None:
    digits = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8")).hexdigest()[:8]
    assert position(name) == sum(int(d, 16) * 16 ** (7 - i) for i, d in enumerate(digits)) / 4294967296


def test_decomposed_names_fall_where_composed_ones_do() -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é_각"), unicodedata.normalize("NFD", "é_각")
    assert composed != decomposed
    assert position(composed) == position(decomposed)


def test_thresholds_bound_the_parts_from_below() -> None:
    names = [f"image_{i}" for i in range(500)]
    x = position(names[0])
    assert SplitRule(test=x, validation=x + 1e-12).part(names[0]) == "validation"
    assert SplitRule(test=x + 1e-12, validation=x + 1e-12).part(names[0]) == "test"
    assert SplitRule(test=0, validation=x).part(names[0]) == "train"
    shares = [SplitRule().part(name) for name in names]
    assert 0.15 < shares.count("test") / 500 < 0.25
    assert 0.06 < shares.count("validation") / 500 < 0.14


def test_an_image_keeps_its_part_when_others_come() -> None:
    few = split([_pair(f"i{i}") for i in range(20)], SplitRule())
    many = split([_pair(f"i{i}") for i in range(200)], SplitRule())
    for part in few.counts():
        assert set(getattr(few, part)) == {p for p in getattr(many, part) if int(p.stem[1:]) < 20}


def test_a_group_stays_together() -> None:
    parts = split([_pair(f"i{i}", group=f"patient{i % 7}") for i in range(70)], SplitRule())
    homes = {p.group: part for part in parts.counts() for p in getattr(parts, part)}
    for part in parts.counts():
        assert all(homes[p.group] == part for p in getattr(parts, part))
    assert parts.counts() != split([_pair(f"i{i}") for i in range(70)], SplitRule()).counts()


def test_official_parts_win_and_may_not_be_mixed() -> None:
    official = [_pair("a", "test"), _pair("b", "train"), _pair("c", "validation")]
    assert split(official, SplitRule()).counts() == {"train": 1, "validation": 1, "test": 1}
    with pytest.raises(DataError, match=r"3 of 4 images have an official part, d\.png has none"):
        split([*official, _pair("d")], SplitRule())


def test_the_hash_names_the_split_not_the_order() -> None:
    pairs = [_pair(f"i{i}") for i in range(30)]
    assert split(pairs, SplitRule()).sha256() == split(pairs[::-1], SplitRule()).sha256()
    assert split(pairs, SplitRule()).sha256() != split(pairs[1:], SplitRule()).sha256()
    assert split([_pair('a,"b"')], SplitRule()).csv().splitlines()[1].startswith('"a,""b"".png",')
