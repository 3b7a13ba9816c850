"""What arguments come to: items, their names, what was passed over, and what is refused."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest

from ascseg_cli.data.discover import Found, Item, Missing, default_output, discover
from ascseg_cli.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def plant(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def find(*inputs: str, output: str = "out", listed: tuple[str, ...] = ()) -> Found:
    return discover(inputs, output=Path(output), listed=listed)


def names(found: Found) -> list[str]:
    return [item.name for item in found.items]


def stems(found: Found) -> dict[str, str]:
    return {item.name: item.output_stem for item in found.items}


def test_a_folder_is_read_to_its_depth_in_order(here: Path) -> None:
    plant("in/b.png", "in/a/z.JPG", "in/a/deep/er/x.tif", "in/a.webp", "in/c.dcm", "in/B.jpeg")
    found = find("in")
    assert names(found) == ["B.jpeg", "a/deep/er/x.tif", "a/z.JPG", "a.webp", "b.png", "c.dcm"]
    assert Item("in/a/z.JPG", "a/z.JPG", "a/z") in found.items


def test_a_file_named_by_itself_is_its_bare_name_whatever_its_suffix(here: Path) -> None:
    plant("in/deep/a.png", "in/deep/scan", "in/.hidden.png")
    found = find("in/deep/a.png", str(here / "in/deep/scan"), "in/.hidden.png")
    assert stems(found) == {"a.png": "a", "scan": "scan", ".hidden.png": ".hidden"}


def test_what_is_no_image_is_counted_and_what_is_hidden_too(here: Path) -> None:
    plant("in/a.png", "in/Thumbs.db", "in/x/notes.TXT", "in/x/more.txt", "in/README")
    plant("in/._a.png", "in/.DS_Store", "in/.git/b.png")
    found = find("in")
    assert names(found) == ["a.png"]
    assert found.ignored == {".db": 1, ".txt": 2, "": 1}
    assert found.hidden == 3
    assert not found.missing


def test_overlapping_arguments_give_each_file_once_by_its_first_name(here: Path) -> None:
    plant("in/a/b.png", "in/c.png", "in/a/notes.txt")
    found = find("in", "in/a", "in/a/b.png", "in/*.png", str(here / "in" / "." / "c.png"))
    assert names(found) == ["a/b.png", "c.png"]
    assert found.ignored == {".txt": 1}
    assert not found.missing
    assert names(find("in/a", "in")) == ["b.png", "c.png"]


def test_linked_folders_are_entered_once_and_circles_end(here: Path) -> None:
    plant("in/real/a.png", "in/real/sub/b.png", "elsewhere/c.png")
    for link, target in {
        "in/a_link": "real", "in/real/up": "..", "in/real/sub/self": ".", "in/other": "../elsewhere",
        "elsewhere/back": "../in",
    }.items():  # fmt: skip
        os.symlink(target, link)
    expected = ["other/c.png", "real/a.png", "real/sub/b.png"]
    assert names(find("in")) == expected
    for pattern in ("in/*", "in/**", "in/**/*", "in/**/*.png", "in/**/**/*.png"):
        assert names(find(pattern)) == expected, pattern
    assert names(find("in/a_link/*.png")) == ["a.png"]
    assert names(find("in/a_l*/*.png")) == ["a_link/a.png"]


def test_links_to_files_are_items_and_dangling_ones_too(here: Path) -> None:
    plant("in/a.png")
    os.symlink("a.png", "in/b.png")
    os.symlink("nowhere", "in/c.png")
    os.symlink("d.png", "in/d.png")
    assert names(find("in")) == ["a.png", "b.png", "c.png", "d.png"]
    assert names(find("in/c.png")) == ["c.png"]


def test_patterns(here: Path) -> None:
    plant("in/a.png", "in/b.jpg", "in/x/c.png", "in/x/y/d.png", "in/[1].png", "in/.h.png", "in/n.txt", "top.png")
    assert names(find("in/*.png")) == ["[1].png", "a.png"]
    assert names(find("in/**/*.png")) == ["[1].png", "a.png", "x/c.png", "x/y/d.png"]
    assert names(find("in/*/*.png")) == ["x/c.png"]
    assert names(find("in/[ab].*")) == ["a.png", "b.jpg"]
    assert names(find("in/?.jpg")) == ["b.jpg"]
    assert names(find("in/[1].png")) == ["[1].png"]  # it exists as it stands
    assert names(find("*.png")) == ["top.png"]
    assert names(find(f"{here}/in/x/**")) == ["c.png", "y/d.png"]
    assert names(find("in/.h*")) == [".h.png"]
    found = find("in/*")
    assert names(found) == ["[1].png", "a.png", "b.jpg", "x/c.png", "x/y/d.png"]
    assert found.ignored == {".txt": 1}


def test_a_pattern_cant_climb_behind_its_wildcard(here: Path) -> None:
    plant("in/x/a.png", "secret.png")
    with pytest.raises(UsageError, match=r"'\.\.' behind a wildcard"):
        find("in/*/../../*.png")
    assert names(find("in/../*.png")) == ["secret.png"]


def test_listed_names_are_literal(here: Path) -> None:
    plant("in/a.png", "in/a*.png", "in/sub/b.png")
    found = find(listed=("in/a*.png", "in/sub", "in/*.jpg"))
    assert names(found) == ["a*.png", "b.png"]
    assert found.missing == (Missing("in/*.jpg", "no such file or folder"),)


def test_what_gives_nothing_is_told(here: Path) -> None:
    plant("empty/notes.txt")
    found = find("gone.png", "", "empty", "empty/*.png", "gone/*.png", "empty/notes.txt/", "a\0b")
    assert [(m.name, m.reason) for m in found.missing] == [
        ("gone.png", "no such file or folder"),
        ("", "an empty name"),
        ("empty", "no image in this folder"),
        ("empty/*.png", "no image matches this pattern"),
        ("gone/*.png", "no image matches this pattern"),
        ("empty/notes.txt/", "no such file or folder"),
        ("a\0b", "no such file or folder"),
    ]
    assert not found.items


def test_an_unreadable_folder_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("in/a.png", "in/locked/b.png")
    scan = os.scandir

    def guarded(folder: str) -> object:
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find("in")
    assert names(found) == ["a.png"]
    assert found.missing == (Missing("in/locked", "the folder can't be read: Permission denied"),)
    assert [m.reason for m in find("in/locked").missing] == ["the folder can't be read: Permission denied"]


# ---- output


def test_the_output_and_earlier_results_are_never_scanned(here: Path) -> None:
    plant("in/a.png", "in/out/masks/a.png", "in/old_ascseg/run.json", "in/old_ascseg/masks/a.png")
    plant("in/mine/run.json", "in/mine/results.csv", "in/mine/masks/a.png", "in/not_ascseg/b.png")
    for argument in ("in", "in/**/*.png", "in/*", "**/*.png"):
        found = find(argument, output="in/out")
        assert {Path(name).name for name in names(found)} == {"a.png", "b.png"}
        assert len(found.items) == 2, argument
        assert {Path(folder).name for folder in found.earlier_outputs} == {"old_ascseg", "mine"}
    os.symlink("in/out", "link")
    assert len(find("in", output="link").items) == 2


@pytest.mark.parametrize("argument", ["out", "out/masks", "out/masks/a.png", "out/*/*.png", "elsewhere/masks"])
def test_an_input_in_the_output_is_refused(here: Path, argument: str) -> None:
    plant("out/masks/a.png")
    os.symlink("out", "elsewhere")
    with pytest.raises(UsageError, match="lies in the output folder"):
        find(argument)


def test_an_input_beside_the_output_is_not_in_it(here: Path) -> None:
    plant("out2/a.png", "out/x")
    assert names(find("out2")) == ["a.png"]


def test_default_output(here: Path) -> None:
    plant("in/a.b.png", "data.v1/a.png")
    expected = {
        "in/a.b.png": "in/a.b_ascseg", "in": "in_ascseg", "in/": "in_ascseg", "data.v1": "data.v1_ascseg",
        "in/*.png": "in_ascseg", "in/**/*.png": "in_ascseg", "*.png": "../here_ascseg", ".": "../here_ascseg",
        "gone.png": "gone_ascseg",
    }  # fmt: skip
    for argument, want in expected.items():
        assert default_output(argument) == Path(os.path.abspath(here / want)), argument
    with pytest.raises(UsageError, match="no place for results"):
        default_output("/")


# ---- names


def test_inputs_that_share_a_stem_keep_their_suffix(here: Path) -> None:
    plant("in/a.png", "in/a.jpg", "in/b.png", "in/x/a.png", "in/C.png", "in/c.jpg")
    assert stems(find("in")) == {
        "a.png": "a.png", "a.jpg": "a.jpg", "b.png": "b", "x/a.png": "x/a", "C.png": "C.png", "c.jpg": "c.jpg",
    }  # fmt: skip


def test_a_kept_suffix_may_not_meet_another_output(here: Path) -> None:
    plant("in/a.png", "in/a.jpg", "in/a.jpg.bmp")
    assert stems(find("in")) == {"a.png": "a.png", "a.jpg": "a.jpg", "a.jpg.bmp": "a.jpg.bmp"}


def test_an_output_may_not_have_a_folders_name(here: Path) -> None:
    """`masks/a.png` can't be a file and the folder of `a.png/b.png`."""
    plant("in/a.jpg", "in/a.png/b.bmp")
    assert stems(find("in")) == {"a.jpg": "a.jpg", "a.png/b.bmp": "a.png/b"}
    plant("in/a.jpg.png/c.bmp")
    with pytest.raises(UsageError, match=r"in/a\.jpg.*in/a\.jpg\.png/c\.bmp"):
        find("in")


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        (("a/x.png", "b/x.png"), ("a", "b")),
        (("a/x.png", "b/x.png"), ("a/x.png", "b/x.png")),
        (("a/x.png", "a/X.png"), ("a",)),
        (("a/d/x.png", "a/D/x.png"), ("a",)),
        (("a/é.png", unicodedata.normalize("NFD", "a/é.png")), ("a",)),
        (("a/한.png", "b/한.png"), ("a/*", "b/*")),
    ],
)
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these names are one file on this system")
def test_what_would_share_an_output_is_refused_with_both_names(
    here: Path, files: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    plant(*files)
    with pytest.raises(UsageError) as error:
        find(*arguments)
    assert all(file in error.value.message for file in files)
    assert "\n" not in error.value.message


def test_names_of_all_kinds(here: Path) -> None:
    kept = [
        "대장 내시경.png",
        unicodedata.normalize("NFD", "병변.png"),
        "🙂.png",
        "two  spaces.png",
        "a\nb.png",
        "-x.png",
    ]
    plant(*(f"in/{name}" for name in kept))
    assert sorted(names(find("in"))) == sorted(kept)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode on this system")
def test_names_that_are_not_utf8(here: Path) -> None:
    plant("in/ok.png")
    raw = os.fsencode(here / "in") + b"/caf\xe9.png"
    with open(raw, "wb"):
        pass
    item = find("in").items[0]
    assert item.name == "caf\\udce9.png"
    item.name.encode("utf-8")
    assert os.fsencode(item.output_stem) == b"caf\xe9"
    assert item.path.exists()
    assert find(os.fsdecode(raw) + "x").missing[0].name.isprintable()


def test_many_files_in_time(here: Path) -> None:
    """No step may be quadratic: pairs that share their stem."""
    plant("in/a.png")
    for i in range(2_000):
        os.link("in/a.png", f"in/p{i}.png")
        os.link("in/a.png", f"in/p{i}.jpg")
    found = find("in")
    assert len(found.items) == 4_001
    assert stems(found)["p7.png"] == "p7.png"


def test_a_long_search_is_told_of(tmp_path: Path) -> None:
    names = [tmp_path / "many" / f"{number}.png" for number in range(2500)]
    (tmp_path / "many").mkdir()
    for name in names:
        name.touch()
    told: list[int] = []
    discover([tmp_path / "many"], output=tmp_path / "out", watch=told.append)
    assert told == [1000, 2000, 2500]
    told.clear()
    discover([], listed=names, output=tmp_path / "out", watch=told.append)
    assert told == [1000, 2000]
