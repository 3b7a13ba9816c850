"""From what the user named to the images to segment, each with the name of its output.

Nothing is opened here: a file that turns out damaged is still one item, so that it becomes one row. All of it
is settled before the first image, so that two inputs which would share an output are refused in time.

A file named by itself is an item whatever it is called, and its name is its bare name. In a folder, or where a
pattern leads, only what has an image's suffix counts; names that begin with a dot (the shell's habit, and
macOS's `._x.jpg`) and earlier results are passed over, and all of it is counted. Links are followed; each
folder is entered once, by its own path rather than a link's, so that circles of links end.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ascseg_cli.data.naming import output_stems, printable
from ascseg_cli.data.remote import Place, RemotePath, exists, is_url, parse
from ascseg_cli.data.remote_tree import RemoteFolder, look_through
from ascseg_cli.data.tree import EVERY, IMAGE_SUFFIXES, File, Files, Tree, folder_key, suffix
from ascseg_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Item:
    """One image to segment.

    where        where it is read; a path as text, a fifth of a Path in memory: runs hold a million
    name         posix path, relative as the user knows it, with suffix; always encodable as UTF-8
    output_stem  posix path of its outputs under `masks/` and so on, without the final `.png`; may hold
                 surrogates where the file's name isn't UTF-8 (the output then has the same bytes)
    """

    where: str | RemotePath
    name: str
    output_stem: str

    @property
    def path(self) -> Place:
        """Where it is read."""
        return self.where if isinstance(self.where, RemotePath) else Path(self.where)


@dataclass(frozen=True)
class Missing:
    """An argument, or a folder inside one, that gave nothing: one failed row with a reason.

    before  how many items come before it in the order of the arguments
    """

    name: str
    reason: str
    hint: str = ""
    before: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Found:
    """What the arguments came to.

    items            in the arguments' order, sorted within a folder or pattern
    missing          what gave nothing (no such path, an empty folder or pattern, no right to read)
    ignored          files in folders that aren't images, by suffix in lower case ("" without one)
    hidden           files and folders in folders whose name begins with a dot, not entered
    earlier_outputs  folders in folders that hold an earlier run's results, not entered
    """

    items: tuple[Item, ...]
    missing: tuple[Missing, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    earlier_outputs: tuple[str, ...] = ()


def discover(
    inputs: Sequence[str | Path],
    *,
    output: Place,
    listed: Sequence[str | Path] = (),
    watch: Callable[[int], None] = lambda count: None,
) -> Found:
    """The images that `inputs` name, each once.

    inputs  files, folders (recursive), s3:// URLs of either, or patterns with * ? [ ] ** that name nothing as
            they stand
    output  the folder of the results, which need not exist; never scanned
    listed  further files and folders, taken literally (from `--files-from`)
    watch   called now and then, while folders and lists are long, with the number of images found so far
    Raises UsageError where two inputs would share an output (both are named), where one lies in `output`, and
    for `..` behind a pattern's first wildcard.
    """
    search = _Search(output, watch)
    for argument in inputs:
        search.add(os.fspath(argument), pattern=True)
    for argument in listed:
        search.add(os.fspath(argument), pattern=False)
    stems = output_stems([(str(where), name) for where, name in search.files])
    items = tuple(
        Item(where, printable(name), stem) for (where, name), stem in zip(search.files, stems, strict=True)
    )
    tree = search.tree
    search.missing += [Missing(printable(name), reason, "", len(items)) for name, reason in tree.unreadable]
    earlier = tuple(printable(folder) for folder in tree.earlier_outputs)
    return Found(items, tuple(search.missing), tree.ignored, tree.hidden, earlier)


def default_output(first: str | Path) -> Place:
    """`<first input without suffix>_ascseg`, beside the first input (beside a pattern's fixed part)."""
    text = os.fspath(first)
    if is_url(text):
        return _default_remote_output(parse(text))
    path = Path(_split_pattern(text)[0]) if _is_pattern(text) else Path(text)
    path = Path(os.path.abspath(path))
    if not path.is_dir():
        path = path.with_suffix("") if path.name else path
    if not path.name:
        raise UsageError(f"no place for results beside {printable(text)!r}", "name one with --output")
    return path.with_name(path.name + "_ascseg")


def _default_remote_output(first: RemotePath) -> RemotePath:
    name = first.name.removesuffix(first.suffix) if first.suffix.lower() in IMAGE_SUFFIXES else first.name
    if not name:
        raise UsageError(f"no place for results beside {first}", "name one with --output")
    return RemotePath(first.bucket, first.key.removesuffix(first.name) + name + "_ascseg")


class _Search:
    """What was found so far; one call of `add` an argument."""

    def __init__(self, output: Place, watch: Callable[[int], None]) -> None:
        self._watch = watch
        self.files: list[tuple[str | RemotePath, str]] = []
        self.missing: list[Missing] = []
        self._remote_output = output if isinstance(output, RemotePath) else None
        here = None if isinstance(output, RemotePath) else output
        self.tree = Tree(here)
        self._output = os.path.realpath(here) if here else None
        self._seen: set[tuple[object, str]] = set()
        self._parents: dict[str, tuple[object, str]] = {}

    def add(self, argument: str, *, pattern: bool) -> None:
        if is_url(argument):
            self._add_remote(parse(argument), folder=argument.endswith("/"))
        elif pattern and _is_pattern(argument):
            fixed, parts = _split_pattern(argument)
            self._refuse_within_output(argument, os.path.realpath(fixed))
            self._take_all(argument, "no image matches this pattern", self._matches(fixed, parts))
        elif not argument or not os.path.lexists(argument):
            self._lack(argument, "no such file or folder" if argument else "an empty name")
        elif os.path.isdir(argument):
            self._refuse_within_output(argument, os.path.realpath(argument))
            self._take_all(argument, "no image in this folder", list(self._watched(self.tree.walk(argument))))
        else:
            self._refuse_within_output(argument, self._parent(argument)[1])
            self._take([(argument, os.path.basename(argument))])

    def _add_remote(self, place: RemotePath, *, folder: bool) -> None:
        """An object by its suffix, without asking the store: lists may be long; else a folder, else an object."""
        output = self._remote_output
        if output and place.is_within(output):
            raise _within_output(str(place), str(output))
        try:
            if folder or not place.key or suffix(place.name) not in IMAGE_SUFFIXES:
                found = look_through(place, output, lambda count: self._watch(len(self.files) + count))
                if found.images or folder or not exists(place):
                    return self._take_remote(place, found)
        except FileNotFoundError:
            return self._lack(str(place), f"there is no bucket {place.bucket!r}")
        self._take([(place, place.name)])

    def _take_remote(self, place: RemotePath, found: RemoteFolder) -> None:
        if not found.images:
            self._lack(str(place), "no image in this folder", f"suffixes read: {_SUFFIXES}")
        self.tree.ignored += found.ignored
        self.tree.hidden += found.hidden
        self.tree.earlier_outputs += [str(place / name) for name in found.earlier_outputs]
        self._take([(place / name, name) for name in found.images])

    def _matches(self, fixed: str, parts: Sequence[str]) -> Files:
        return self.tree.matches(fixed, parts) if os.path.isdir(fixed) else []

    def _take_all(self, argument: str, lack: str, found: Files) -> None:
        unreadable = any(folder == argument for folder, _ in self.tree.unreadable)
        if not found and not unreadable:
            self._lack(argument, lack, f"suffixes read: {_SUFFIXES}")
        self._take(found)

    def _take(self, found: Sequence[tuple[str | RemotePath, str]]) -> None:
        """Keeps what is new, sorted by the parts of its name."""
        new = []
        for where, name in found:
            key = self._key(where)
            if key not in self._seen:
                self._seen.add(key)
                new.append((where, name))
        new.sort(key=lambda file: file[1].replace("/", "\0"))  # part by part
        before = len(self.files)
        self.files += new
        if len(self.files) // EVERY > before // EVERY:
            self._watch(len(self.files))

    def _watched(self, found: Iterable[File]) -> Iterator[File]:
        for count, file in enumerate(found, 1):
            yield file
            if count % EVERY == 0:
                self._watch(len(self.files) + count)

    def _key(self, path: str | RemotePath) -> tuple[object, str]:
        """The same for two ways to one file."""
        if isinstance(path, RemotePath):
            return path.bucket, path.key
        return self._parent(path)[0], os.path.basename(path)

    def _parent(self, path: str) -> tuple[object, str]:
        """(identity, real path) of the folder that holds the file."""
        folder = os.path.dirname(path) or "."
        if folder not in self._parents:
            self._parents[folder] = (folder_key(folder), os.path.realpath(folder))
        return self._parents[folder]

    def _lack(self, name: str, reason: str, hint: str = "") -> None:
        self.missing.append(Missing(printable(name), reason, hint, len(self.files)))

    def _refuse_within_output(self, argument: str, real: str) -> None:
        if self._output is None:
            return
        real, output = os.path.normcase(real), os.path.normcase(self._output)
        if real == output or real.startswith(output.rstrip(os.sep) + os.sep):
            raise _within_output(argument, self._output)


def _within_output(argument: str, output: str) -> UsageError:
    return UsageError(
        f"the input {printable(argument)!r} lies in the output folder {printable(output)!r}",
        "give another --output",
    )


_SUFFIXES = " ".join(sorted(IMAGE_SUFFIXES))


def _is_pattern(argument: str) -> bool:
    return any(letter in argument for letter in "*?[") and not os.path.lexists(argument)


def _split_pattern(pattern: str) -> tuple[str, list[str]]:
    """(fixed part, parts from the first wildcard on)."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if any(letter in part for letter in "*?["))
    if ".." in parts[first:]:
        raise UsageError(f"the pattern {printable(pattern)!r} has '..' behind a wildcard", "leave it out")
    return (os.path.join(*parts[:first]) if first else "."), list(parts[first:])
