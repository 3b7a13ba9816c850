"""Who looks on while a run trains: the command's display, or a test."""

from __future__ import annotations

from typing import Protocol

from ascseg_cli.training.fit import Fit
from ascseg_cli.training.log import Row


class Watch(Protocol):
    """Who looks on."""

    def teach(self, step: int, steps: int, loss: float) -> None:
        """After each of the steps that train a teacher, which come before the run's own; the loss read last."""

    def step(self, fit: Fit) -> None:
        """After each step."""

    def check(self, row: Row) -> None:
        """After each validation."""

    def say(self, kind: str, text: str) -> None:
        """A line for the user: kind is "note" or "warning"."""
