"""Runs into one folder, for the tests of what a run writes, keeps and refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ascseg_cli.data.discover import Found
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.run import Run, Summary
from ascseg_cli.inference.settings import KINDS, Settings

ALL = Settings(threshold=0.5, save=KINDS)


class Runner:
    """Runs into one folder, and remembers what was said."""

    def __init__(self, engine: Any, root: Path) -> None:
        self.engine, self.root = engine, root
        self.warnings: list[str] = []

    def __call__(self, found: Found, mode: str = "new", settings: Settings = ALL, stop_after: int = 0) -> Summary:
        self.results = []

        def seen(result: Any) -> None:
            self.results.append(result)
            if len(self.results) == stop_after:
                run.stop()

        self.warnings.clear()
        run = Run(
            found, self.engine, settings, OutputFolder(self.root),
            mode=mode, threads=2, arguments=["predict", "photos"], on_result=seen, warn=self.warnings.append,
        )  # fmt: skip
        return run()

    def rows(self) -> list[dict[str, str]]:
        with open(self.root / "results.csv", encoding="utf-8", newline="") as file:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]

    def pictures(self) -> dict[str, bytes]:
        """Everything but the records."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and path.parent != self.root)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}

    def record(self) -> dict[str, Any]:
        return json.loads((self.root / "run.json").read_bytes())
