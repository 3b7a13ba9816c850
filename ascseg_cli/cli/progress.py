"""How a long run shows itself on stderr: a live line on a terminal, now and then a plain one in a pipe.

Nothing here touches stdout, which belongs to data.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ascseg_cli.cli import say

if TYPE_CHECKING:
    from typing_extensions import Self

_FIRST_LINE, _EVERY = 5.0, 30.0  # seconds, of the plain lines


class Search:
    """Says now and then how many images were found: a folder of a million, or a slow store, takes minutes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._next_line = quiet, time.monotonic() + _FIRST_LINE

    def __call__(self, count: int) -> None:
        """So many so far."""
        if not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _EVERY
            say("progress", f"{count:,} images found so far")


class Display:
    """What holds the terminal inside a `with`: `_live`, made on entering by `_begin`, where there is one to hold.

    quiet  nothing live is shown
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Any = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._live = self._begin()
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self) -> Any:
        raise NotImplementedError


class RunProgress(Display):
    """Counts images done and failed, and tells images a second and the time left.

    total  images in all
    quiet  only failures and warnings are said
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._total = total
        self._done = self._failed = self._worked = 0
        self._started = time.monotonic()
        self._next_line = self._started + _FIRST_LINE
        self._task: Any = None

    def _begin(self) -> Any:
        line = _live_line()
        self._task = line.add_task("", total=self._total, failed="", note="")
        return line

    def stopping(self) -> None:
        """Say that the run is being ended; safe in a signal handler, since nothing here goes through a buffer."""
        if self._live is not None:
            self._live.update(self._task, note="ending; Ctrl-C again: at once")
        elif not self._quiet:
            os.write(2, b"note: finishing the images in flight; another signal stops at once\n")

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def advance(self, *, failed: bool = False, worked: bool = True) -> None:
        """One more image; `worked` is False where an earlier run had done it."""
        self._done += 1
        self._failed += failed
        self._worked += worked
        if self._live is not None:
            self._live.update(self._task, advance=1, failed=f"{self._failed} failed" if self._failed else "")
        elif not self._quiet and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _EVERY
            say("progress", self._line())

    def _line(self) -> str:
        speed = self._worked / max(self.seconds, 1e-9)
        words = [f"{self._done:,} of {self._total:,} images"]
        if self._failed:
            words.append(f"{self._failed:,} failed")
        words.append(f"{speed:.3g} images/s")
        if speed > 0 and self._done < self._total:
            words.append(f"{duration((self._total - self._done) / speed)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 3 min 20 s, 5 h 2 min, 2 d 4 h."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = max(0, round(seconds))
    for (name, size), (smaller, small) in pairwise(units):
        if left >= size:
            rest = left % size // small
            return f"{left // size} {name} {rest} {smaller}" if rest else f"{left // size} {name}"
    return f"{left} s"


def _live_line() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} images/s" if task.speed and not task.fields["note"] else "")

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            known = task.time_remaining is not None and not task.finished and not task.fields["note"]
            return Text(f"{duration(task.time_remaining or 0)} left" if known else "")

    class Failed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["failed"], style="red")

    class Note(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["note"])

    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Failed(),
        Speed(),
        Left(),
        Note(),
        console=Console(stderr=True, highlight=False),
        refresh_per_second=5,
        transient=True,
    )
