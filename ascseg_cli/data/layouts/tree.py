"""A data set's folder, listed once: what the layouts look at to recognise it and to pair its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ascseg_cli.errors import DataError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))


class Tree:
    """Every visible folder below `root` with its image files; links to folders aren't followed."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder", "name the folder that holds the data set")
        self.root = root

    @cached_property
    def folders(self) -> dict[Path, list[Path]]:
        """Folder -> its image files, sorted by name; archives' own litter (`__MACOSX`, dot files) left out."""
        found = {}
        for folder, children, names in os.walk(self.root):
            children[:] = sorted(c for c in children if not c.startswith((".", "__MACOSX")))
            images = [n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and not n.startswith(".")]
            found[Path(folder)] = [Path(folder, n) for n in sorted(images)]
        return found

    def named(self, *endings: str) -> Iterator[Path]:
        """Folders whose name, in lower case, ends with one of `endings`."""
        return (folder for folder in self.folders if folder.name.lower().endswith(endings))

    def says(self, word: str) -> bool:
        """Whether the root's own name or any folder below it holds `word`."""
        names = [self.root.resolve().name, *(folder.name for folder in self.folders if folder != self.root)]
        return any(word in name.lower() for name in names)
