"""Names of outputs: one for each image, alike on every file system, and settled before the first is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from ascseg_cli.errors import UsageError

_WRITTEN = (".png", ".geojson")  # a folder of this name beside the file would be in its way


def printable(name: str) -> str:
    """The name as valid UTF-8: bytes that aren't become escapes such as `\\udcff`."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode("utf-8")


def output_stems(files: Sequence[tuple[str, str]]) -> list[str]:
    """The output name of each file, without its last `.png`.

    files    (path, relative posix name) of each
    returns  the name without suffix; with it where files share a stem: `a.jpg`, `a.png`
    Raises UsageError, naming both, where two would still share an output: names that differ in case or in
    Unicode's normal form only count as one, since macOS and Windows keep them in one file.
    """
    stems = [str(PurePosixPath(name).with_suffix("")) for _, name in files]
    folders = _folders(files)
    while True:
        clashes = _clashes(stems, folders)
        short = [i for group in clashes for i in group if stems[i] != files[i][1]]
        if not short:
            break
        for i in short:
            stems[i] = files[i][1]
    if clashes:
        first, *rest = (files[i][0] for i in clashes[0])
        stem = stems[clashes[0][0]]
        below = (folders[_key(stem + end)] for end in _WRITTEN if _key(stem + end) in folders)
        raise _refusal(first, next(iter(rest), None) or next(below), stem)
    return stems


def _key(name: str) -> str:
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).lower()


def _folders(files: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each folder of the output tree, by key, with one file that lies below it."""
    folders: dict[str, str] = {}
    for path, name in files:
        parent = name.rpartition("/")[0]
        while parent and _key(parent) not in folders:
            folders[_key(parent)] = path
            parent = parent.rpartition("/")[0]
    return folders


def _clashes(stems: Sequence[str], folders: dict[str, str]) -> list[list[int]]:
    """Groups of files that would share an output, or one whose output has a folder's name."""
    seen: set[str] = set()
    groups: dict[str, list[int]] = {}  # those of the few alone: there may be millions of names
    for stem in stems:
        key = _key(stem)
        if key in seen or any(key + suffix in folders for suffix in _WRITTEN):
            groups[key] = []
        seen.add(key)
    if groups:
        for i, stem in enumerate(stems):
            if (key := _key(stem)) in groups:
                groups[key].append(i)
    return list(groups.values())


def _refusal(first: str, second: str, stem: str) -> UsageError:
    return UsageError(
        f"{printable(first)!r} and {printable(second)!r} would share the output {printable(stem + '.png')!r}",
        "name a folder that holds both, so that its tree is mirrored; or predict them into two --output folders",
    )
