"""Folders and patterns, read in a fixed order and without ever going in a circle.

Python's own glob follows links of folders without end (its `**` stops at forty levels), and can't say what it
passed over; so the few lines that match a pattern part by part are ours.
"""

from __future__ import annotations

import fnmatch
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})

EVERY = 1000  # images between two calls of a `watch`

File = tuple[str, str]  # (path, posix name relative to where the search began)
Files = list[File]
Step = tuple[str, str]  # a folder: (path, its name with a slash behind it, "" where the search began)


def folder_key(folder: str) -> object:
    """What tells whether two paths lead to one folder."""
    try:
        status = os.stat(folder)
    except OSError:
        return os.path.abspath(folder)
    return (status.st_dev, status.st_ino)


def suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


class Tree:
    """Walks folders, and remembers what it passed over; each folder's share is counted once.

    ignored          files without an image's suffix, by suffix
    hidden           names that begin with a dot
    earlier_outputs  folders with results of an earlier run
    unreadable       (folder, reason)
    """

    def __init__(self, output: Path | None) -> None:
        self.ignored: Counter[str] = Counter()
        self.hidden = 0
        self.earlier_outputs: list[str] = []
        self.unreadable: list[tuple[str, str]] = []
        self._output_key = folder_key(os.fspath(output)) if output else None
        self._counted: set[object] = set()

    def walk(self, root: str) -> Iterator[File]:
        """All images below `root`, each as `root` leads to it."""
        return self._walk([(root, "")])

    def matches(self, fixed: str, parts: Sequence[str]) -> Files:
        """All images that the parts of a pattern match below `fixed`, then those below the folders it matches.

        One file may come by several paths, through links; its first is the one to keep.
        """
        roots: list[Step] = []
        files: Files = []
        self._match((fixed, ""), list(parts), files, roots)
        roots.sort(key=lambda step: os.path.islink(step[0]))
        return [*files, *self._walk(roots)]

    def _walk(self, roots: Sequence[Step]) -> Iterator[File]:
        for (folder, name), entries in self._folders(roots):
            self._count(folder_key(folder), entries)
            for entry in entries:
                if suffix(entry.name) in IMAGE_SUFFIXES and not _is_folder(entry):
                    if not entry.name.startswith("."):
                        yield os.path.join(folder, entry.name), name + entry.name

    def _match(self, step: Step, parts: list[str], files: Files, roots: list[Step]) -> None:
        """Adds what the parts match in one folder: files, and folders to be walked."""
        part, rest = parts[0], parts[1:]
        if part == "**" and not rest:
            roots.append(step)
        elif part == "**":
            for below, _ in self._folders([step]):
                self._match(below, rest, files, roots)
        else:
            folder, name = step
            matching = [entry for entry in self._entries(folder) if _matches(entry.name, part)]
            for entry in filter(_is_folder, matching):
                below = (os.path.join(folder, entry.name), f"{name}{entry.name}/")
                if not self._is_output(below[0], self._entries(below[0])):
                    self._match(below, rest or ["**"], files, roots)
            if not rest:
                matching = [entry for entry in matching if not _is_folder(entry)]
                self._count((folder_key(folder), part), matching)
                images = (entry.name for entry in matching if suffix(entry.name) in IMAGE_SUFFIXES)
                files += [(os.path.join(folder, image), name + image) for image in images]

    def _folders(self, roots: Sequence[Step]) -> Iterator[tuple[Step, list[os.DirEntry[str]]]]:
        """The roots and all folders below with their entries, each once, links to folders last."""
        entered: set[object] = set()
        pending, links = list(reversed(roots)), deque[Step]()
        while pending or links:
            folder, name = pending.pop() if pending else links.popleft()
            key = folder_key(folder)
            if key in entered:
                continue
            entered.add(key)
            entries = self._entries(folder)
            if (folder, name) not in roots and self._is_output(folder, entries):
                continue
            yield (folder, name), entries
            for entry in entries:
                if _is_folder(entry) and not entry.name.startswith("."):
                    step = (os.path.join(folder, entry.name), f"{name}{entry.name}/")
                    (links if entry.is_symlink() else pending).append(step)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"the folder can't be read: {error.strerror or error}"
            if (folder, reason) not in self.unreadable:
                self.unreadable.append((folder, reason))
            return []

    def _is_output(self, folder: str, entries: list[os.DirEntry[str]]) -> bool:
        """Whether it is this run's output, or that of an earlier run (then it is remembered)."""
        if folder_key(folder) == self._output_key:
            return True
        names = {entry.name for entry in entries}
        earlier = "run.json" in names and (folder.endswith("_ascseg") or "results.csv" in names)
        if earlier and (key := folder_key(folder)) not in self._counted:
            self._counted.add(key)
            self.earlier_outputs.append(folder)
        return earlier

    def _count(self, key: object, entries: list[os.DirEntry[str]]) -> None:
        """Counts what is no image, once for each key: a folder, or a pattern's part in it."""
        if key in self._counted:
            return
        self._counted.add(key)
        for entry in entries:
            if entry.name.startswith("."):
                self.hidden += 1
            elif suffix(entry.name) not in IMAGE_SUFFIXES and not _is_folder(entry):
                self.ignored[suffix(entry.name)] += 1


def _matches(name: str, part: str) -> bool:
    """As the shell does: a dot in front must be written out."""
    return fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
