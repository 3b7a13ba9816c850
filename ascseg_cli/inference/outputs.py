"""The output folder: every file in it appears whole or not at all, and none lands outside.

A file is written under a temporary name in its target's folder and then renamed over it. Temporary names all
have one form, so that what a killed run left can be told from anything else and removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ascseg_cli.data import png_writer
from ascseg_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from ascseg_cli.inference.journal import Journal

SUFFIXES = {"masks": ".png", "overlays": ".png", "probabilities": ".png", "polygons": ".geojson"}
TEMPORARY = ".ascseg-{}.tmp"
JOURNAL = "journal.jsonl"


def place_inside(kind: str, stem: str) -> str:
    """Where the output of a kind lies in its folder, as records name it; `stem` is the image's, see `Item`."""
    return f"{kind}/{stem}{SUFFIXES[kind]}"


class FolderError(OutputError):
    """Nothing more can be written to the folder: the disk is full, or it is read-only; going on is pointless."""


class OutputFolder:
    """Where a run writes. Safe to use from several threads.

    root  the folder; it is created with the first file
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[Path] = set()
        self._temporary: set[Path] = set()
        self._lock = threading.Lock()

    def path(self, kind: str, stem: str) -> Path:
        """Where the output of a kind belongs; `stem` is the image's posix path without suffix, inside the folder.

        Raises OutputError for a stem that would leave the folder.
        """
        parts = PurePosixPath(stem)
        if parts.is_absolute() or ".." in parts.parts or not parts.name or (os.name == "nt" and ":" in stem):
            raise OutputError(f"{stem!r} would be written outside {self.root}")
        return self.root / place_inside(kind, stem)

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in its place, whole. Raises OutputError; FolderError where no other would fare better."""
        with self.open(path) as file:
            file.write(content)

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that takes its place when the block ends well, and vanishes when it doesn't."""
        temporary = path.parent / TEMPORARY.format(secrets.token_hex(6))
        with as_output_error(path):
            self._make_folder(path.parent)
            with self._lock:
                self._temporary.add(temporary)
            try:
                with open(temporary, "xb") as file:
                    yield file
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            finally:
                with self._lock:
                    self._temporary.discard(temporary)

    def __str__(self) -> str:
        return str(self.root)

    def entries(self) -> list[str]:
        """The names in the folder, without what a run leaves that ended before its first image.

        Raises UsageError where it is a file, OutputError.
        """
        with as_output_error(self.root):
            if not os.path.lexists(self.root):
                return []
            if not self.root.is_dir():
                raise UsageError(f"{self.root} is a file; --output must be a folder")
            return [path.name for path in self.root.iterdir() if not _is_remainder(path)]

    def journal(self, say: Callable[[str], None]) -> Journal:
        """The folder's journal, not yet open."""
        from ascseg_cli.inference.journal import Journal

        return Journal(self.root)

    def read(self, path: Path) -> bytes | None:
        """What a file holds; None where there is none that can be read."""
        try:
            return path.read_bytes() if path.is_file() else None  # a pipe would be waited for
        except OSError:
            return None

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files, where they exist, and folders that become empty. Raises OutputError."""
        folders = set()
        here = {folder for folder in {path.parent for path in paths} if self._lies_here(folder)}
        for path in (path for path in paths if path.parent in here):
            with as_output_error(path):
                path.unlink(missing_ok=True)
            folders |= set(path.parents) - set(self.root.parents) - {self.root}
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def discard(self, stem: str, kinds: Iterable[str]) -> None:
        """Remove an image's outputs where they exist, as far as the system lets us."""
        for kind in kinds:
            with contextlib.suppress(OSError, OutputError):
                path = self.path(kind, stem)
                if self._lies_here(path.parent):
                    path.unlink(missing_ok=True)

    def remove_temporary(self) -> None:
        """Remove files that are being written just now: for a run that stops at once."""
        for path in list(self._temporary):
            with contextlib.suppress(OSError):
                path.unlink()

    def remove_leftovers(self) -> int:
        """Remove temporary files that a killed run left here; returns how many."""
        left = [path for path in self.root.rglob(TEMPORARY.format("*")) if path.is_file()]
        for path in left:
            with as_output_error(path):
                path.unlink(missing_ok=True)
        return len(left)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not self._lies_here(folder):
            raise OutputError(
                f"{folder} is a link that leads out of {self.root}", "remove it, or give another --output"
            )
        self._known.add(folder)

    def _lies_here(self, folder: Path) -> bool:
        """Whether no link on the way to it leads out."""
        return folder.resolve().is_relative_to(self.root.resolve())


def _is_remainder(path: Path) -> bool:
    return path.match(TEMPORARY.format("*")) or (path.name == JOURNAL and path.stat().st_size == 0)


_FOLDER_IS_LOST = {errno.ENOSPC, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
_HINTS = {
    errno.ENOSPC: "free some space",
    errno.EACCES: "give an --output that you may write to",
    errno.EROFS: "give an --output that you may write to",
    errno.ENAMETOOLONG: "shorten the file's name",
}


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turns what the system says about writing `path` into an OutputError, or a FolderError."""
    try:
        yield
    except OSError as error:
        kind = FolderError if error.errno in _FOLDER_IS_LOST else OutputError
        why = error.strerror or str(error)
        raise kind(f"{path} can't be written: {why}", _HINTS.get(error.errno or 0, "")) from error


def mask_png(mask: np.ndarray) -> bytes:
    """A mask (h, w) bool as an 8-bit grey PNG of 0 and 255."""
    return png_writer.encode(mask.astype(np.uint8) * 255)


def picture_png(pixels: np.ndarray) -> bytes:
    """Pixels (h, w, 3) uint8 RGB as PNG."""
    return png_writer.encode(pixels)


def probability_png(probability: np.ndarray) -> bytes:
    """A probability map (h, w), 0..1, as a 16-bit grey PNG of round(65535 p)."""
    return png_writer.encode(np.rint(np.multiply(probability, 65535, dtype=np.float64)).astype(np.uint16))


def geojson(collection: dict[str, Any]) -> bytes:
    """A GeoJSON object as UTF-8."""
    return json_bytes(collection) + b"\n"


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8; what acts on a terminal is escaped, and bytes that aren't UTF-8 become lone surrogates'."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode("utf-8", "backslashreplace")


# Control characters that JSON lets pass, and those that turn the direction of writing.
_UNSEEN = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
