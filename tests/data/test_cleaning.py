"""A clean copy: what can be mended is, the rest is named, and the originals keep every byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from broken import blot, draw_broken, exif, picture, save
from PIL import Image

from ascseg_cli.data import cleaning
from ascseg_cli.data.cleaning import Cleaned, check_output, clean, safe_stems
from ascseg_cli.data.decode import read_mask, read_pixels
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.report import Report, look_through
from ascseg_cli.errors import OutputError, UsageError


def _report(root: Path) -> Report:
    dataset = open_dataset(root)
    return look_through(dataset, dataset.split(), 2)


def _bytes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Cleaned]:
    folder = tmp_path_factory.mktemp("cleaning")
    root, output = draw_broken(folder / "data"), folder / "clean"
    before = _bytes(root)
    cleaned = clean(_report(root), output, 2)
    assert _bytes(root) == before
    return root, output, cleaned


def test_what_can_be_used_or_mended_is_in_the_copy(made: tuple[Path, Path, Cleaned]) -> None:
    _, output, cleaned = made
    usable = {"fine", "ones", "empty", "palette", "halo", "two", "copy"}
    assert {path.stem for path in (output / "images").iterdir()} == usable | {"turned"}
    assert {path.name for path in (output / "masks").iterdir()} == {f"{stem}.png" for stem in usable | {"turned"}}
    assert {remark.path.stem for remark in cleaned.left_out} == {"classes", "colours", "grey", "small", "cut"}
    assert (len(cleaned.written), cleaned.turned, cleaned.turned_masks, cleaned.united) == (8, 1, 1, 1)


def test_the_copy_has_nothing_to_complain_of(made: tuple[Path, Path, Cleaned]) -> None:
    _, output, _ = made
    again = _report(output)
    assert again.remarks == ()
    assert again.dataset.unpaired == ()
    assert set(again.kinds()) == {"0/255", "empty"}


def test_fine_files_are_copied_untouched_and_turned_ones_are_upright(made: tuple[Path, Path, Cleaned]) -> None:
    root, output, _ = made
    for name in ("fine.png", "copy.jpg"):
        assert (output / "images" / name).read_bytes() == (root / "images" / name).read_bytes()
    with Image.open(output / "images" / "turned.png") as upright:
        assert upright.getexif().get(274, 1) == 1
        np.testing.assert_array_equal(np.asarray(upright), read_pixels(root / "images" / "turned.jpg"))


def test_masks_are_united_and_turned_as_their_image(made: tuple[Path, Path, Cleaned]) -> None:
    _, output, _ = made
    truth = blot()
    np.testing.assert_array_equal(read_mask(output / "masks" / "two.png"), truth | np.roll(truth, 12, axis=0))
    np.testing.assert_array_equal(read_mask(output / "masks" / "turned.png"), np.rot90(truth, -1))
    with Image.open(output / "masks" / "ones.png") as mask:
        assert mask.mode == "L"
        assert set(np.unique(np.asarray(mask)).tolist()) == {0, 255}


def test_the_split_file_keeps_every_part(made: tuple[Path, Path, Cleaned]) -> None:
    root, output, _ = made
    original = open_dataset(root).split()
    copied = open_dataset(output).split(split_file=output / "split.csv")
    for part, count in copied.counts().items():
        stems = {pair.stem for pair in getattr(copied, part)}
        assert len(stems) == count
        assert stems <= {pair.stem for pair in getattr(original, part)}
    assert sum(copied.counts().values()) == 8


def test_official_layouts_come_out_plain_with_their_parts(tmp_path: Path) -> None:
    for part, name in (("Training", "ISIC_1"), ("Validation", "ISIC_2")):
        save(tmp_path / f"in/ISIC-2017_{part}_Data/{name}.jpg", picture(len(part)))
        save(tmp_path / f"in/ISIC-2017_{part}_Part1_GroundTruth/{name}_segmentation.png", blot())
    clean(_report(tmp_path / "in"), tmp_path / "out", 1)
    assert (tmp_path / "out/split.csv").read_text() == "image,part\nISIC_1.jpg,train\nISIC_2.jpg,validation\n"
    assert [pair.stem for pair in open_dataset(tmp_path / "out").pairs] == ["ISIC_1", "ISIC_2"]


def _pairs(*names: str) -> list[Pair]:
    return [Pair(Path(name), ()) for name in names]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a/x.png", "b/y.png"], ["x", "y"]),
        (["a/x.png", "b/X.png"], ["a_x", "b_X"]),
        (["p/a/x.png", "q/a/x.png", "a_x.png"], ["a_x_2", "a_x_3", "a_x"]),
        (["benign (1).png"], ["benign (1)"]),
        (['a:b*"?.png', "con.png", "tail. .png"], ["a_b___", "_con", "tail"]),
        (["e\u0301.png"], ["é"]),
        ([".hidden.png", "...png"], ["hidden", "_"]),
        ([f"{'x' * 200}.png"], ["x" * 120]),
    ],
)
def test_names_become_safe_and_stay_apart(names: list[str], stems: list[str]) -> None:
    assert safe_stems(_pairs(*names)) == stems


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    root = draw_broken(tmp_path / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for output in (tmp_path / "full", tmp_path / "full" / "note.txt"):
        with pytest.raises(UsageError, match="isn't an empty folder; a clean copy overwrites nothing"):
            check_output(output, root)
    for output in (root, root / "clean"):
        with pytest.raises(UsageError, match="lies inside the data"):
            check_output(output, root)
    (tmp_path / "empty").mkdir()
    clean(_report(root), tmp_path / "empty", 1)
    assert (tmp_path / "empty" / "split.csv").is_file()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = _report(draw_broken(tmp_path / "data"))
    full = OSError(28, "No space left on device")

    def fail(source: Path, target: Path) -> None:
        raise full

    monkeypatch.setattr(cleaning.shutil, "copyfile", fail)
    with pytest.raises(OutputError, match="can't be written: No space left on device"):
        clean(report, tmp_path / "out", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_half_turn_is_written_upright_with_its_mask_as_it_is(tmp_path: Path) -> None:
    save(tmp_path / "in/images/a.jpg", picture(1), exif=exif(3), quality=95)
    save(tmp_path / "in/masks/a.png", blot())
    clean(_report(tmp_path / "in"), tmp_path / "out", 1)
    np.testing.assert_array_equal(
        read_pixels(tmp_path / "out/images/a.png"), read_pixels(tmp_path / "in/images/a.jpg")
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/a.png"), blot())
