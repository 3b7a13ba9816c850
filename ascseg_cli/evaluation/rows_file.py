"""The per-image figures as a CSV file, and back: a later evaluation compares with what an earlier one wrote."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ascseg_cli.data.spreadsheet import harmless
from ascseg_cli.errors import DataError
from ascseg_cli.evaluation.metrics import MASK_METRICS, Counts
from ascseg_cli.evaluation.scoring import Scored
from ascseg_cli.evaluation.table import Table
from ascseg_cli.whole_file import whole_file


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One row an image, whole or not at all; undefined figures are empty cells. Raises OutputError.

    A name that a spreadsheet would run as a formula gets `./` before it: the same path.
    """
    with whole_file(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({**row, "name": harmless(row["name"], "./")})


MOST_PIXELS = 2**53  # all whole numbers up to it are float64's too


def read_rows(path: Path) -> Table:
    """The table that `write_rows` wrote. Raises DataError for any other file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark before it
            rows = csv.DictReader(file)
            if "name" not in (columns := rows.fieldnames or ()):
                raise ValueError("no column of names")
            table = Table(with_probabilities="brier" in columns)
            for row in rows:
                table.add(_scored(row, table.metrics))
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} is no per-image table of `ascseg evaluate --csv`",
            f"its columns begin name,{','.join(MASK_METRICS[:3])}",
        ) from error
    return table


def _scored(row: dict[str, str], metrics: Iterable[str]) -> Scored:
    values = {name: float(row[name]) if row[name] else None for name in metrics}
    if not all(value is None or math.isfinite(value) for value in values.values()):
        raise ValueError("a figure is infinite or no number")
    counts = Counts(*(_pixels(row[name]) for name in ("tp", "fp", "fn", "tn")))
    return Scored(row["name"].removeprefix("./"), (_pixels(row["height"]), _pixels(row["width"])), counts, values)


def _pixels(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_PIXELS:
        raise ValueError("no number of pixels")
    return number
