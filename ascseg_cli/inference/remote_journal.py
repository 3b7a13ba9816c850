"""The journal of a run in an object store, where nothing can be appended to: many objects in place of one file.

Records are gathered and put as the next object, `journal/000000000001.jsonl` and so on, every few seconds; until
then an image isn't done, and a run that is killed before does it again with the same outcome. A copy on this
machine is what is asked.

One run at a time: it renews the lease `journal/lease` while it lives. A run that finds a lease watches whether it
is renewed; no clocks are compared. And each object of the journal is put only where there is none of that number,
so that of two runs which both believe they are alone (one was cut off for a while) the first to lose stops.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ascseg_cli.data.remote import RemotePath, delete_objects, keys_below, read_object, write_object
from ascseg_cli.errors import InputError, OutputError, StoreError
from ascseg_cli.inference.journal import Journal, line_of
from ascseg_cli.inference.outputs import json_bytes

FOLDER, LEASE = "journal", "lease"
_EVERY = 5.0  # seconds between two objects, and between two renewals
_PATIENCE = 3 * _EVERY  # without a renewal: nobody is alive
_MOST = 1000  # records in an object
_LARGEST = 1 << 30  # bytes of an object
_READERS = 8


class RemoteJournal:
    """`Records` at a remote place.

    say  called with a line where opening takes long
    """

    locked = True

    def __init__(self, place: RemotePath, say: Callable[[str], None]) -> None:
        self._place, self._say = place, say
        self._folder = place / FOLDER
        self._me = secrets.token_hex(8)
        self._lock = threading.RLock()
        self._waiting: list[bytes] = []
        self._number = 0
        self._failure: OutputError | None = None
        self._closing = threading.Event()
        self._renewals = threading.Thread(target=self._renew, name="ascseg-lease", daemon=True)
        self._here = tempfile.TemporaryDirectory(prefix="ascseg-")
        self._copy = Journal(Path(self._here.name))

    def open(self) -> None:
        """Take the lease and read what is there. Raises OutputError, also where another run is at work."""
        try:
            self._take_lease()
            self._read()
        except BaseException:
            self._clean_up()
            raise
        self._renewals.start()

    def _read(self) -> None:
        names = sorted(name for name in keys_below(self._folder) if name.endswith(".jsonl"))
        with ThreadPoolExecutor(_READERS) as readers, open(self._copy.path, "wb") as file:
            file.writelines(readers.map(self._object, names))
        self._copy.open()
        self._number = int(names[-1].partition(".")[0]) if names else 0

    def close(self) -> None:
        """Put what is gathered, and give the lease back. Raises OutputError."""
        self._closing.set()
        self._renewals.join()
        try:
            if not self._failure:
                self._put()
                delete_objects([self._folder / LEASE])
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        self._copy.close()
        self._here.cleanup()

    def forget(self) -> None:
        """Begin anew with none. Raises OutputError."""
        delete_objects([self._folder / name for name in keys_below(self._folder) if name.endswith(".jsonl")])
        self._copy.forget()

    def __iter__(self) -> Iterator[str]:
        """The images of earlier runs."""
        return iter(self._copy)

    def __len__(self) -> int:
        return len(self._copy)

    def get(self, image: str) -> dict[str, Any] | None:
        """The last record of an image of an earlier run."""
        return self._copy.get(image)

    def add(self, record: dict[str, Any]) -> None:
        """Add a record; one that takes back an earlier one is durable on return. Raises OutputError."""
        with self._lock:
            if self._failure:
                raise self._failure
            self._waiting.append(line_of(record))
            if len(record) == 1 or len(self._waiting) >= _MOST:
                self._put()

    def records(self) -> Iterator[dict[str, Any]]:
        """Every record there was when it was opened."""
        return self._copy.records()

    def _object(self, name: str) -> bytes:
        try:
            return read_object(self._folder / name, _LARGEST)
        except InputError as error:
            raise OutputError(f"{self._folder / name}: {error.message}") from error

    def _put(self) -> None:
        """Put what is gathered as the next object."""
        with self._lock:
            if not self._waiting:
                return
            place = self._folder / f"{self._number + 1:012}.jsonl"
            content = b"".join([json_bytes({"run": self._me}) + b"\n", *self._waiting])
            try:
                write_object(place, content, only_new=True)
            except FileExistsError:
                # It may be ours: put by an attempt whose answer was lost.
                if self._object(place.name) != content:
                    self._failure = self._taken()
                    raise self._failure from None
            self._number += 1
            self._waiting.clear()

    def _take_lease(self) -> None:
        lease = self._folder / LEASE
        try:
            write_object(lease, self._beat(0), only_new=True)
            return
        except FileExistsError:
            before = self._lease()
        self._say(f"{self._place} is held by a run that didn't end; watching for {_PATIENCE:.0f} s if it lives")
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            time.sleep(_EVERY / 5)
            if self._lease() != before:
                raise self._taken()
        write_object(lease, self._beat(0))

    def _renew(self) -> None:
        """Until closing: every few seconds, put what is gathered and show that this run lives."""
        beat = 0
        while not self._closing.wait(_EVERY):
            beat += 1
            try:
                self._put()
                if self._me.encode() not in self._lease():
                    raise self._taken()
                write_object(self._folder / LEASE, self._beat(beat))
            except OutputError as error:
                self._failure = error
                return

    def _beat(self, number: int) -> bytes:
        return f"{self._me} {number}\n".encode()

    def _lease(self) -> bytes:
        with contextlib.suppress(InputError):
            return read_object(self._folder / LEASE, 1000)
        return b""

    def _taken(self) -> StoreError:
        return StoreError(
            f"another run is writing into {self._place}", "wait for its end, or give another --output"
        )
