"""A run's outputs in an object store, which has no rename and needs none: an object appears whole or not at all.

A process that dies leaves nothing half-written, so there is nothing to clean up after it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from ascseg_cli.data.remote import (
    RemotePath,
    delete_objects,
    exists,
    keys_below,
    read_object,
    write_from_file,
    write_object,
)
from ascseg_cli.errors import InputError, OutputError, StoreError
from ascseg_cli.inference.outputs import JOURNAL, place_inside
from ascseg_cli.inference.remote_journal import FOLDER, LEASE, RemoteJournal

_LARGEST = 2 << 30  # bytes of an output that is read back


class RemoteOutputs:
    """A `Destination` at a remote place; its paths are relative to it, and name nothing on this machine."""

    root = Path()

    def __init__(self, place: RemotePath) -> None:
        self._place = place

    def __str__(self) -> str:
        return str(self._place)

    def entries(self) -> list[str]:
        """Some of the names there, and always those that tell of an earlier run. Raises StoreError."""
        try:
            present = {key.partition("/")[0] for key in keys_below(self._place, some=True)} - {FOLDER}
            if any(key != LEASE for key in keys_below(self._place / FOLDER, some=True)):
                present.add(JOURNAL)
        except FileNotFoundError:
            raise StoreError(f"there is no bucket {self._place.bucket!r}", "create it first") from None
        if exists(self._place / "run.json"):
            present.add("run.json")
        return sorted(present)

    def journal(self, say: Callable[[str], None]) -> RemoteJournal:
        """Its journal, not yet open."""
        return RemoteJournal(self._place, say)

    def path(self, kind: str, stem: str) -> Path:
        """Where the output of a kind belongs. Raises OutputError for a stem that would lead out."""
        parts = PurePosixPath(stem)
        if parts.is_absolute() or ".." in parts.parts or not parts.name:
            raise OutputError(f"{stem!r} would be written outside {self}")
        return self.root / place_inside(kind, stem)

    def write(self, path: Path, content: bytes) -> None:
        """Put an object in its place. Raises OutputError; StoreError where no other would fare better."""
        write_object(self._at(path), content)

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """A file of this machine that becomes an object when the block ends well."""
        with tempfile.NamedTemporaryFile(prefix="ascseg-") as file:
            yield file
            file.flush()
            write_from_file(self._at(path), Path(file.name))

    def read(self, path: Path) -> bytes | None:
        """What an object holds; None where there is none that can be read. Raises StoreError."""
        try:
            return read_object(self._at(path), _LARGEST)
        except InputError:
            return None

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove objects where they exist. Raises OutputError."""
        delete_objects([self._at(path) for path in paths])

    def discard(self, stem: str, kinds: Iterable[str]) -> None:
        """Remove an image's outputs where they exist, as far as the store lets us."""
        with contextlib.suppress(OutputError):
            self.remove([self.path(kind, stem) for kind in kinds])

    def remove_temporary(self) -> None:
        """There are none."""

    def remove_leftovers(self) -> int:
        """There are none."""
        return 0

    def _at(self, path: Path) -> RemotePath:
        return self._place / path.as_posix()
