"""How training shows itself on stderr: two live lines on a terminal, one plain line a validation everywhere."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from ascseg_cli.cli import say
from ascseg_cli.cli.progress import Display, duration
from ascseg_cli.training.fit import Fit
from ascseg_cli.training.log import Row
from ascseg_cli.training.settings import RunSettings

_EVERY = 30.0  # seconds between plain lines amid long epochs
_REFRESH = 0.5  # seconds: reading the loss makes a GPU wait


class TrainProgress(Display):
    """Shows a run; what `training.watch.Watch` describes.

    quiet  only warnings are said
    """

    def __init__(self, settings: RunSettings, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._settings = settings
        self._began: tuple[float, float, int] | None = None  # time, progress and images when this session began
        self._taught: float | None = None  # when the first of the teacher's steps was done
        self._shown = self._said = time.monotonic()
        self._first, self._second = "the first step compiles and takes longer", ""
        self._share = 0.0
        self._last: Row | None = None
        self._ending = False

    def _begin(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False)
        return Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def stopping(self) -> None:
        """Say that the run is being ended; safe in a signal handler."""
        self._ending = True
        if self._live is None and not self._quiet:
            os.write(2, b"note: finishing this step, then saving; another signal stops at once\n")

    def teach(self, step: int, steps: int, loss: float) -> None:
        """After each step that trains the teacher."""
        now = time.monotonic()
        self._taught = self._taught or now
        if self._quiet or now - self._shown < _REFRESH:
            return
        self._shown, self._share = now, step / steps
        self._first = f"teacher: step {step:,} of {steps:,}, loss {loss:.4f}"
        if step > 1:
            self._first += f", {duration((now - self._taught) * (steps - step) / (step - 1))} left"
        if self._live is None and now - self._said > _EVERY:
            self._said = now
            say("progress", self._first)

    def step(self, fit: Fit) -> None:
        """After each step."""
        now = time.monotonic()
        if self._began is None:
            self._began = now, fit.progress(), fit.place.drawn
        if self._quiet or now - self._shown < _REFRESH:
            return
        self._shown = now
        self._share = min(1.0, fit.progress())
        self._first = self._where(fit, now)
        self._second = self._how(fit, now)
        if self._live is None and now - self._said > _EVERY:
            self._said = now
            say("progress", f"{self._first}, {self._second}")

    def check(self, row: Row) -> None:
        """After each validation."""
        self._last = row
        self._said = time.monotonic()
        if not self._quiet:
            say(
                "check",
                f"step {row.step:,}, epoch {row.epoch:.1f}, loss {row.loss:.4f}, validation Dice "
                f"{row.validation_dice:.4f}, IoU {row.validation_iou:.4f}",
            )

    def say(self, kind: str, text: str) -> None:
        """A line for the user."""
        if kind != "note" or not self._quiet:
            say(kind, text)

    def _where(self, fit: Fit, now: float) -> str:
        steps = f" of {self._settings.steps:,}" if self._settings.steps else ""
        words = [f"step {fit.place.step:,}{steps}", f"epoch {fit.epoch:.1f}"]
        assert self._began is not None
        began, share, _ = self._began
        if fit.progress() > share and fit.progress() < 1:
            words.append(f"{duration((now - began) * (1 - fit.progress()) / (fit.progress() - share))} left")
        return ", ".join(words)

    def _how(self, fit: Fit, now: float) -> str:
        assert self._began is not None
        began, _, drawn = self._began
        words = [] if math.isnan(fit.loss) else [f"loss {fit.loss:.4f}"]
        if self._last is not None:
            words.append(f"validation Dice {self._last.validation_dice:.4f}, IoU {self._last.validation_iou:.4f}")
        if now > began:
            words.append(f"{(fit.place.drawn - drawn) / (now - began):.3g} images/s")
        return ", ".join(words)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        first = "ending; Ctrl-C again: at once" if self._ending else self._first
        table.add_row(ProgressBar(total=1, completed=self._share, width=20), Text(first))
        return Group(table, Text(self._second, overflow="ellipsis", no_wrap=True))
