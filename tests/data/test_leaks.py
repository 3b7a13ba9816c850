"""A training image whose copy is held out isn't trained on; nothing else changes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import by_pillow, drawn

from ascseg_cli.data.fingerprint import Fingerprint, fingerprint
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.leaks import fingerprints_of, without_leaks
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import Split


def _pair(name: str) -> Pair:
    return Pair(Path("images", f"{name}.png"), (Path("masks", f"{name}.png"),))


def _split(train: str, validation: str, test: str) -> Split:
    return Split("by hand", *(tuple(map(_pair, names)) for names in (train, validation, test)))


def _known(**hashes: int) -> dict[Path, Fingerprint]:
    content = {name: hashlib.sha256(f"{name.lower()}".encode()).digest()[:16] for name in hashes}
    return {_pair(name).image: Fingerprint(content[name], value) for name, value in hashes.items()}


FAR = 0x5A3C_96F0_1234_8EEF


def test_only_training_copies_are_left_out_and_the_nearest_partner_is_named() -> None:
    split = _split("abcd", "vw", "t")
    known = _known(a=0, b=FAR, c=FAR ^ 0b1111, d=0x0F0F_3355_A5A5_7171, v=FAR ^ 0b1, w=FAR, t=0b11)
    kept, left = without_leaks(split, known)
    assert [pair.stem for pair in kept.train] == ["d"]
    assert (kept.validation, kept.test) == (split.validation, split.test)
    assert {(one.image.stem, one.partner.stem, one.part, one.distance) for one in left} == {
        ("a", "t", "test", 2),
        ("b", "w", "validation", 0),
        ("c", "v", "validation", 3),
    }
    assert kept.rule == "by hand; 3 training images that are copies of validation or test images left out"
    assert kept.csv().count(",train") == 1
    assert kept.sha256() == _split("d", "vw", "t").sha256()


def test_copies_within_a_part_or_between_held_out_parts_stay() -> None:
    split = _split("ab", "v", "t")
    kept, left = without_leaks(split, _known(a=FAR, b=FAR, v=0xFFFF, t=0xFFFF))
    assert kept is split
    assert left == ()


def test_an_image_without_a_fingerprint_is_nobodys_copy() -> None:
    known = _known(a=FAR, v=FAR)
    assert [one.image.stem for one in without_leaks(_split("ab", "v", "t"), known)[1]] == ["a"]
    known.pop(_pair("v").image)
    assert without_leaks(_split("ab", "v", "t"), known)[1] == ()


def test_the_same_pixels_are_said_to_be_so() -> None:
    known = _known(v=FAR, V=FAR)
    _, (one,) = without_leaks(_split("V", "v", ""), known)
    assert str(one) == "V.png is the same pixels as v.png of the validation part"
    _, (near,) = without_leaks(_split("a", "v", ""), _known(a=FAR, v=FAR ^ 1))
    assert str(near) == "a.png is a near copy (1 of 64 bits differ) of v.png of the validation part"


def test_a_crop_is_left_out_and_said_to_be_one() -> None:
    noise = [cv2.GaussianBlur(np.random.default_rng(i).normal(size=(150, 200, 3)), (0, 0), 6) for i in range(2)]
    one, other = (cv2.normalize(some, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for some in noise)
    crop = np.ascontiguousarray(one[:, 25:-25])
    known = {_pair(name).image: fingerprint(pixels) for name, pixels in (("a", one), ("b", other), ("v", crop))}
    _, left = without_leaks(_split("ab", "v", ""), known)
    assert [one.image.stem for one in left] == ["a"]
    words = r"a.png is a near copy \(one shows the other or a part of it, likeness [01]\.\d\d\) of v.png of the"
    assert re.match(words, str(left[0]))


def test_a_planted_copy_is_left_out_of_a_folder(tmp_path: Path) -> None:
    """The copy is turned, halved and recompressed; the others are different pictures."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(40):
        noise = cv2.GaussianBlur(np.random.default_rng(i).normal(size=(90, 120, 3)), (0, 0), 8)
        pixels = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        (tmp_path / "images" / f"i{i}.png").write_bytes(by_pillow(pixels, "PNG"))
        (tmp_path / "masks" / f"i{i}.png").write_bytes(by_pillow(pixels[:, :, 0], "PNG"))
    clean = open_dataset(tmp_path).split()
    held = cv2.imread(str(clean.validation[0].image))[:, :, ::-1]
    copy = np.ascontiguousarray(np.rot90(cv2.resize(held, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)))
    victim = clean.train[0]
    victim.image.write_bytes(by_pillow(copy, "JPEG", quality=80))
    known, failed = fingerprints_of([pair.image for pair in open_dataset(tmp_path).pairs], 2)
    assert failed == {}
    kept, left = without_leaks(clean, known)
    assert [(one.image, one.partner) for one in left] == [(victim.image, clean.validation[0].image)]
    assert len(kept.train) == len(clean.train) - 1


def test_files_that_cannot_be_read_are_named_and_counted(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(by_pillow(drawn(), "PNG"))
    bad.write_bytes(b"no picture")
    done: list[int] = []
    known, failed = fingerprints_of([good, bad], 2, lambda: done.append(1))
    assert list(known) == [good]
    assert "not an image" in failed[bad].message
    assert len(done) == 2


@pytest.mark.parametrize(
    ("name", "image", "partner"),
    [("ISIC2017", "ISIC_0012970", "ISIC_0012127"), ("ISIC2017", "ISIC_0000171", "ISIC_0015124")],
)
def test_known_leaks_of_the_official_split_are_found(
    shared_data: Path, name: str, image: str, partner: str
) -> None:
    split = open_dataset(shared_data / name).split()
    few = Split("few", tuple(p for p in split.train if p.stem == image), split.validation[:75], ())
    held = tuple(p for p in split.validation if p.stem == partner)
    few = Split("few", few.train, tuple(dict.fromkeys((*few.validation, *held))), ())
    known, _ = fingerprints_of([p.image for p in (*few.train, *few.validation)], 2)
    _, left = without_leaks(few, known)
    assert [(one.image.stem, one.partner.stem) for one in left] == [(image, partner)]
