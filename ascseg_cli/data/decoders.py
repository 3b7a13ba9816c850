"""Decoding in processes of its own: a file that crashes or stalls its decoder costs itself, not the run.

Decoders are C code that reads whatever a file holds; no test can prove that none of it ends the process. One
process serves one thread at a time; pipes carry the file's bytes there and the pixels back, 2 ms for 1024×768
px beside the decoder's 2. Whatever goes wrong over there, the next image gets a new process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np

from ascseg_cli.data.decode import MAX_PIXELS
from ascseg_cli.errors import AscsegError, InputError

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 60  # for one file: ten times what the largest allowed takes on one slow core
REQUEST = struct.Struct("<Q?Q")  # most pixels, DICOM by its name, bytes that follow
PIXELS, REFUSED, BUG = range(3)
ANSWER = struct.Struct("<BQQ")  # one of these; height and width of the pixels that follow, or 0 and bytes of JSON
# Isolated, so that no file in the current folder can pose as a module; our own path is the caller's.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from ascseg_cli.data.decoder_process import serve; serve({seconds})"
)
_SET_PIPE_SIZE, _PIPE_SIZE = 1031, 1 << 20  # Linux: fewer turns between the two processes, 4.7 → 2.9 ms an image


class _Lost(Exception):
    """The process ended, or was ended, before it answered; the text says how."""


class _Process:
    """One decoder process; used by one thread at a time."""

    def __init__(self, program: str, seconds: float) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", program, *sys.path],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run, which ends its decoders when it is done with them
        )
        self.alive, self.too_slow = True, False
        self._ticks = -1  # seconds that it has been busy; -1: it isn't
        self._lock = threading.Lock()
        for pipe in (self._input, self._output):
            _enlarge(pipe)

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def read_pixels(self, content: bytes, max_pixels: int, by_name: bool) -> np.ndarray:
        """As `decode.read_pixels`. Raises _Lost too."""
        self._count(0)
        try:
            self._send(REQUEST.pack(max_pixels, by_name, len(content)))
            self._send(content)
            kind, height, width = ANSWER.unpack(self._receive(memoryview(bytearray(ANSWER.size))))
            if kind == PIXELS:
                pixels = np.empty((height, width, 3), np.uint8)
                self._receive(pixels.data.cast("B"))
                return pixels
            text = json.loads(bytes(self._receive(memoryview(bytearray(width)))))
        except OSError:
            raise _Lost(self._how_it_ended()) from None
        except BaseException:  # half an answer may still be under way
            self.end()
            raise
        finally:
            self._count(-1)
        if kind == BUG:
            raise RuntimeError(text["message"])
        raise (InputError if text["unreadable"] else AscsegError)(text["message"], text["hint"])

    def _send(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._input.write(rest) :]

    def _receive(self, room: memoryview) -> memoryview:
        rest = room
        while rest:
            read = self._output.readinto(rest)  # type: ignore[attr-defined]  # unbuffered, so it has that
            if not read:
                raise BrokenPipeError
            rest = rest[read:]
        return room

    def _count(self, ticks: int) -> None:
        with self._lock:
            self._ticks = ticks

    def _how_it_ended(self) -> str:
        code = self.end()
        if self.too_slow:
            return f"took longer than {self._seconds:g} s"
        if code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"

    def tick(self) -> None:
        """One more second has passed; ends the process if it has been busy for too long."""
        with self._lock:
            if self._ticks >= 0:
                self._ticks += 1
                if self._ticks > self._seconds:
                    self.too_slow = True
                    self._process.kill()

    def end(self) -> int:
        """End it, however it is; returns its exit code, negative where a signal was the end."""
        self.alive = False
        with contextlib.suppress(OSError):
            self._input.close()
        self._output.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.5)
        self._process.kill()
        return self._process.wait()


def _enlarge(pipe: IO[bytes]) -> None:
    if sys.platform.startswith("linux"):
        import fcntl

        with contextlib.suppress(OSError):  # a user may hold only so much
            fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_SIZE)


class Decoders:
    """As many decoder processes as threads ask at once; inside a `with`. Safe to use from several threads.

    seconds  that one file may take
    warn     called with a line where a process was lost and its file tried once more
    """

    def __init__(self, *, seconds: float = SECONDS, warn: Callable[[str], None] = lambda text: None) -> None:
        self._seconds, self._warn = seconds, warn
        self._program = PROGRAM.format(seconds=5 * seconds)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._closed = threading.Event()
        self._clock = threading.Thread(target=self._watch, name="ascseg-decoders", daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._clock.join()
        for process in self._all:
            process.end()

    def start(self, count: int) -> None:
        """Let so many processes get ready, half a second each, while the caller does something else."""
        with contextlib.suppress(OSError):  # the first image says what is wrong
            for _ in range(count):
                self._give_back(self._new())

    def read_pixels(
        self, content: bytes, *, name: str, max_pixels: int = MAX_PIXELS, by_name: bool = False
    ) -> np.ndarray:
        """The picture in a file's bytes, as `decode.read_pixels` gives it.

        name     of the file, for what is said of it
        by_name  it is named as DICOM files are
        Raises as that, and InputError for a file that crashes its decoder twice, or stalls it.
        """
        for again in (True, False):
            process = self._taken()
            try:
                return process.read_pixels(content, max_pixels, by_name)
            except _Lost as lost:
                if process.too_slow:
                    raise InputError(f"decoding {lost}", "the file may be made to stall decoders") from None
                if not again:
                    raise InputError(f"its decoder crashed ({lost})", "the file may be hostile") from None
                self._warn(f"{name}: its decoder crashed ({lost}) and was replaced; the file is tried once more")
            finally:
                self._give_back(process)
        raise AssertionError("the second turn returns or raises")

    def _taken(self) -> _Process:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return self._new()
        except OSError as error:  # too many processes or open files, no memory
            raise AscsegError(
                f"no decoder can be started: {error.strerror or error}", "raise that limit, or lower --threads"
            ) from error

    def _new(self) -> _Process:
        process = _Process(self._program, self._seconds)
        with self._lock:
            self._all.add(process)
        return process

    def _give_back(self, process: _Process) -> None:
        with self._lock:
            if process.alive:
                self._idle.append(process)
            else:
                self._all.discard(process)

    def _watch(self) -> None:
        # In single seconds, so that the time during which the whole run was suspended isn't counted.
        while not self._closed.wait(1):
            with self._lock:
                busy = list(self._all)
            for process in busy:
                process.tick()
