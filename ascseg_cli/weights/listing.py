"""What `ascseg weights list` shows: the manifest's entries and their state on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascseg_cli.weights.manifest import Entry, load_manifest
from ascseg_cli.weights.store import State, look_up

COLUMNS = ("name", "variant", "size", "where", "validation", "licence")


@dataclass(frozen=True)
class Known:
    """One entry with its state and, where its file is here, its path."""

    entry: Entry
    state: State
    path: Path | None

    def cells(self) -> list[str]:
        """One text for each of COLUMNS; a data set's default is marked with *."""
        entry = self.entry
        return [
            entry.name + (" *" if entry.default else ""),
            entry.variant,
            f"{entry.size / 1e6:.1f} MB" if entry.size else "",
            self.state,
            self._validation(),
            entry.licence,
        ]

    def facts(self) -> dict[str, Any]:
        """Everything the manifest says, with `state` and `path`."""
        return {
            **self.entry.model_dump(mode="json"),
            "state": self.state,
            "path": None if self.path is None else str(self.path),
        }

    def _validation(self) -> str:
        scores = [score for score in self.entry.scores or () if score.part == "validation"]
        return f"{scores[0].metric.replace('pooled_iou', 'pooled IoU')} {scores[0].value:.3f}" if scores else ""


def known_weights() -> list[Known]:
    """Every entry of the manifest, in its order."""
    return [Known(entry, *look_up(entry)) for entry in load_manifest().weights]
