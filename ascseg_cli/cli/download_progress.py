"""How a download shows itself on stderr: a bar on a terminal, one line at its end in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


def say(text: str) -> None:
    """One line for the user on stderr."""
    from ascseg_cli.cli import say as say_line

    say_line("note", text)


class DownloadProgress:
    """Shown from the first byte on, so that a file which is here already shows nothing."""

    def __init__(self, name: str, size: int, *, quiet: bool) -> None:
        self.name = name
        self.size = size
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._bytes = 0

    def __enter__(self) -> DownloadProgress:
        return self

    def update(self, bytes_here: int) -> None:
        """Tell how many bytes are there."""
        self._bytes = bytes_here
        if self.quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            self._start()
        self._bar.update(self._task, completed=bytes_here)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(self.name, total=self.size)
        self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._bytes and kind is None and not self.quiet:
            say(f"{self.name} downloaded, {self._bytes:,} bytes")
