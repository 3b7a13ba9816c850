"""Ctrl-C, SIGTERM, a closed terminal: the first asks a run to end well, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ascseg_cli import exit_codes


def endings() -> list[signal.Signals]:
    """What asks this process to end; the end of its terminal unless that is ignored, as under nohup."""
    found = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


@contextlib.contextmanager
def graceful(first: Callable[[], None], second: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first signal calls `first`; the next calls `second` and ends the process.

    Both are called between two steps of the main thread, so they must not print through buffers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            second()
            os._exit(exit_codes.INTERRUPTED)  # threads may be in the middle of anything; nothing may wait for them
        asked = True
        first()

    before = {number: signal.signal(number, handle) for number in endings()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
