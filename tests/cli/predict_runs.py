"""What tests of `ascseg predict` share: its command line, in a process of its own, and what it left."""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def command(weights: Path, *arguments: object) -> list[str]:
    base = [sys.executable, "-m", "ascseg_cli", "predict", "--weights", str(weights), "--backend", "reference"]
    return [*base, *map(str, arguments)]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
