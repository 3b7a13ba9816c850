"""Where a run writes: a folder of this machine or one in an object store, behind one interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from ascseg_cli.data.remote import Place, RemotePath
from ascseg_cli.inference.outputs import OutputFolder


class Records(Protocol):
    """What is done, image by image. Safe to use from several threads."""

    def get(self, image: str) -> dict[str, Any] | None:
        """The last record of an image of an earlier run."""
        ...

    def add(self, record: dict[str, Any]) -> None:
        """Add a record; `image` is its key. One with nothing else is durable on return. Raises OutputError."""
        ...


class KeptRecords(Records, Protocol):
    """The journal of one place.

    locked  whether other runs are kept out
    """

    locked: bool

    def open(self) -> None:
        """Read what is there and make ready to add. Raises OutputError, also where another run has it open."""
        ...

    def close(self) -> None:
        """Make everything durable, and let others have it. Raises OutputError."""
        ...

    def forget(self) -> None:
        """Begin anew with none. Raises OutputError."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]:
        """The images of earlier runs."""
        ...

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record there was when it was opened."""
        ...


class Destination(Protocol):
    """Every file in it appears whole or not at all, and none lands outside. Safe to use from several threads.

    root  what paths begin with; relative, and no folder of this machine, where the place is remote
    """

    root: Path

    def __str__(self) -> str:
        """The place as the user knows it."""
        ...

    def entries(self) -> list[str]:
        """The names at its top, without what a run leaves that ended before its first image.

        Raises UsageError where it can't be a folder, OutputError.
        """
        ...

    def journal(self, say: Callable[[str], None]) -> KeptRecords:
        """Its journal, not yet open; `say` is called with a line where opening takes long."""
        ...

    def path(self, kind: str, stem: str) -> Path:
        """Where the output of a kind belongs. Raises OutputError for a stem that would lead out."""
        ...

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in its place, whole. Raises OutputError."""
        ...

    def open(self, path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
        """A file that takes its place when the block ends well, and vanishes when it doesn't."""
        ...

    def read(self, path: Path) -> bytes | None:
        """What a file holds; None where there is none that can be read."""
        ...

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files, where they exist, and folders that become empty. Raises OutputError."""
        ...

    def discard(self, stem: str, kinds: Iterable[str]) -> None:
        """Remove an image's outputs where they exist, as far as that can be done."""
        ...

    def remove_temporary(self) -> None:
        """Remove files that are being written just now: for a run that stops at once."""
        ...

    def remove_leftovers(self) -> int:
        """Remove what a killed run left half-written; returns how many."""
        ...


def destination(place: Place) -> Destination:
    """The destination at a place."""
    if isinstance(place, RemotePath):
        from ascseg_cli.inference.remote_outputs import RemoteOutputs

        return RemoteOutputs(place)
    return OutputFolder(place)
