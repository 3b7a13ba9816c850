"""What is done, image by image, in a file that survives a kill: `journal.jsonl` in the output folder.

One line of JSON an image, appended after its outputs are in their places, so an image without a line isn't done.
The last line of an image counts; a line that a kill tore is cut off when the next run opens the file, and one
whose checksum is wrong says nothing.
Only names and places are kept in memory. While a run has the file open, no other can: the system lets go of the
lock when a process ends, however it ends.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import threading
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any

from ascseg_cli.errors import OutputError
from ascseg_cli.inference.outputs import JOURNAL, as_output_error, json_bytes


class Journal:
    """The journal of one output folder. Reading and appending are safe from several threads.

    locked  whether other runs are kept out: some network file systems have no locks
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.locked = folder / JOURNAL, True
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._reader: IO[bytes] | None = None
        self._writer: FileIO | None = None

    def open(self) -> None:
        """Read what is there and make ready to append. Raises OutputError, also where another run has it open."""
        with as_output_error(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(self.path) and not stat.S_ISREG(os.lstat(self.path).st_mode):
                raise OutputError(f"{self.path} is a link, or no file", "remove it, or give another --output")
            self._writer = FileIO(self.path, "a")
            self._lock_out_others()
            self._reader = open(self.path, "rb")
            whole = 0
            for line in self._reader:
                record = _parse(line)
                if record is not None:
                    self._places[record["image"]] = whole
                if line.endswith(b"\n"):
                    whole += len(line)
            self._writer.truncate(whole)

    def forget(self) -> None:
        """Begin anew with an empty journal. Raises OutputError."""
        with as_output_error(self.path):
            assert self._writer is not None
            self._writer.truncate(0)
            self._places.clear()

    def close(self) -> None:
        """Let go of the file."""
        for file in (self._reader, self._writer):
            if file is not None:
                file.close()
        self._reader = self._writer = None

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """The images of earlier runs."""
        return iter(self._places)

    def get(self, image: str) -> dict[str, Any] | None:
        """The last record of an image of an earlier run."""
        place = self._places.get(image)
        if place is None or self._reader is None:
            return None
        with self._lock:
            self._reader.seek(place)
            return _parse(self._reader.readline())

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; `image` is its key. Raises OutputError."""
        line = line_of(record)
        with self._lock, as_output_error(self.path):
            assert self._writer is not None
            written = self._writer.write(line)
            if written != len(line):  # unbuffered: a full disk takes only a part, which would spoil the next line
                self._writer.truncate(self._writer.tell() - (written or 0))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def records(self) -> Iterator[dict[str, Any]]:
        """Every whole record in the file."""
        with as_output_error(self.path), open(self.path, "rb") as file:
            yield from (record for record in map(_parse, file) if record is not None)

    def _lock_out_others(self) -> None:
        assert self._writer is not None
        try:
            _lock(self._writer.fileno())
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                self.locked = False
                return
            self.close()
            raise OutputError(
                f"another run is writing into {self.path.parent}", "wait for its end, or give another --output"
            ) from error


def _lock(descriptor: int) -> None:
    """Lock a file for this process, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        # Windows also keeps others from reading what is locked: one byte far behind the end harms no one.
        os.lseek(descriptor, 1 << 40, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def line_of(record: dict[str, Any]) -> bytes:
    """A record as its line: JSON whose last value is the CRC-32 of the JSON without it."""
    body = json_bytes(record)
    return body[:-1] + _CHECK % zlib.crc32(body) + b"\n"


_CHECK = b',"check":"%08x"}'
_CHECK_SIZE = len(_CHECK % 0)


def _parse(line: bytes) -> dict[str, Any] | None:
    line, end = line[:-1], line[-1:]
    body = line[:-_CHECK_SIZE] + b"}"
    if end != b"\n" or line[-_CHECK_SIZE:] != _CHECK % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("image"), str) else None
