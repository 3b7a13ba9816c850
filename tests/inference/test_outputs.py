"""Files appear whole or not at all, and nowhere else than in the output folder."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from disks import mounted
from PIL import Image

from ascseg_cli.errors import OutputError
from ascseg_cli.inference import outputs
from ascseg_cli.inference.outputs import FolderError, OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "out")


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_file_is_there_only_when_its_block_ends_well(folder: OutputFolder) -> None:
    path = folder.path("masks", "a/b")
    with folder.open(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    with pytest.raises(ZeroDivisionError), folder.open(path) as file:
        file.write(bytes(1 // 0))
    assert path.read_bytes() == b"half"
    assert files(folder.root) == ["masks/a/b.png"]


@pytest.mark.parametrize("stem", ["../a", "a/../../b", "/etc/a", "", ".", "a/.."])
def test_no_name_leads_out(folder: OutputFolder, stem: str) -> None:
    with pytest.raises(OutputError, match="outside"):
        folder.path("masks", stem)


def test_no_link_leads_out(folder: OutputFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.root.mkdir()
    (folder.root / "masks").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(OutputError, match="leads out"):
        folder.write(folder.path("masks", "a"), b"x")
    assert files(tmp_path / "elsewhere") == []


def test_a_link_in_the_place_of_an_output_is_replaced_not_followed(folder: OutputFolder, tmp_path: Path) -> None:
    precious = tmp_path / "precious.png"
    precious.write_bytes(b"precious")
    folder.write(folder.path("masks", "b"), b"x")
    folder.path("masks", "a").symlink_to(precious)
    folder.write(folder.path("masks", "a"), b"mask")
    assert precious.read_bytes() == b"precious"
    assert folder.path("masks", "a").read_bytes() == b"mask"


def test_names_with_dots_spaces_and_any_script(folder: OutputFolder) -> None:
    for stem in ("a.jpg", "환자 1/사진", "🙂", "...", "a b"):
        folder.write(folder.path("masks", stem), b"x")
    assert len(files(folder.root)) == 5


def test_leftovers_of_a_killed_run_go_and_foreign_files_stay(folder: OutputFolder) -> None:
    folder.write(folder.path("masks", "a"), b"x")
    (folder.root / "masks" / ".ascseg-0123456789ab.tmp").write_bytes(b"torn")
    (folder.root / "masks" / "mine.tmp").write_bytes(b"foreign")
    assert folder.remove_leftovers() == 1
    assert files(folder.root) == ["masks/a.png", "masks/mine.tmp"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FolderError),
        (errno.EROFS, FolderError),
        (errno.ENAMETOOLONG, OutputError),
        (errno.EACCES, OutputError),
    ],
)
def test_what_the_system_says_is_passed_on(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[OutputError]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=os.strerror(number)) as caught:
        folder.write(folder.path("masks", "a"), b"x")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert files(folder.root) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "64k") as disk:
        yield disk


def test_a_full_disk_leaves_whole_files_only(small_disk: Path) -> None:
    folder = OutputFolder(small_disk / "out")
    with pytest.raises(FolderError, match="No space left"):
        list(map(lambda number: folder.write(folder.path("masks", str(number)), bytes(5000)), range(100)))
    left = list((small_disk / "out").rglob("*.*"))
    assert len(left) > 5
    assert all(path.stat().st_size == 5000 for path in left)


def test_masks_are_0_and_255_and_probabilities_65535_times_p() -> None:
    mask = np.array([[True, False, True]])
    picture = Image.open(io.BytesIO(outputs.mask_png(mask)))
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), [[255, 0, 255]])
    p = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    p[0, :3] = 0, 1, 0.5
    picture = Image.open(io.BytesIO(outputs.probability_png(p)))
    assert picture.mode == "I;16"
    want = [[round(65535 * float(value)) for value in row] for row in p]
    np.testing.assert_array_equal(np.asarray(picture), want)


def test_pictures_keep_their_colours() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(outputs.picture_png(pixels)))), pixels)


def test_json_keeps_any_script_and_survives_names_that_are_not_utf8() -> None:
    content = outputs.json_bytes({"name": "폴립\udcff\n"})
    assert "폴립".encode() in content
    assert json.loads(content) == {"name": "폴립\udcff\n"}
    with pytest.raises(ValueError, match="JSON"):
        outputs.json_bytes(float("nan"))
