"""What runs in a decoder process: files come by standard input, pixels or refusals go to standard output."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
from pathlib import Path
from typing import IO

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.decoders import ANSWER, BUG, PIXELS, REFUSED, REQUEST
from ascseg_cli.errors import AscsegError, InputError


def serve(seconds: float) -> None:
    """Decode until standard input ends.

    seconds  after which a decoder that stalls ends itself: where nobody is left who would end it
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to all of a job's processes; the run ends its decoders
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory is short the system shall end this process, not the run
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    # Nothing that a library prints may come between the answers.
    source, target = open(os.dup(0), "rb"), open(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    with open(os.devnull, "w", encoding="utf-8") as devnull:
        while request := source.read(REQUEST.size):
            max_pixels, by_name, length = REQUEST.unpack(request)
            content = source.read(length)
            faulthandler.dump_traceback_later(seconds, exit=True, file=devnull)
            _answer(target, content, max_pixels, by_name)
            faulthandler.cancel_dump_traceback_later()


def _answer(target: IO[bytes], content: bytes, max_pixels: int, by_name: bool) -> None:
    try:
        pixels = read_pixels(content, max_pixels=max_pixels, by_name=by_name)
    except AscsegError as error:
        _tell(target, REFUSED, error.message, error.hint, unreadable=isinstance(error, InputError))
    except MemoryError:
        _tell(target, REFUSED, "not enough memory for this image", "", unreadable=True)
    except Exception as error:
        _tell(target, BUG, f"{type(error).__name__}: {error}", "", unreadable=False)
    else:
        _write(target, ANSWER.pack(PIXELS, *pixels.shape[:2]))
        _write(target, pixels.data.cast("B"))


def _tell(target: IO[bytes], kind: int, message: str, hint: str, *, unreadable: bool) -> None:
    text = json.dumps({"message": message, "hint": hint, "unreadable": unreadable}).encode("ascii")
    _write(target, ANSWER.pack(kind, 0, len(text)) + text)


def _write(target: IO[bytes], content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[target.write(rest) :]
