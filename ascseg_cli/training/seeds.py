"""Several runs that differ in their seed alone: how much of a figure is chance."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping

from ascseg_cli.training.log import Row

FIGURES = {"validation_iou": "pooled IoU", "validation_dice": "mean Dice"}


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1); 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summary(last: Mapping[int, Row]) -> list[str]:
    """The last row of each seed's run in words, a line a figure."""
    lines = []
    for name, words in FIGURES.items():
        values = [getattr(row, name) for row in last.values()]
        mean, deviation = spread(values)
        each = ", ".join(f"{value:.4f}" for value in values)
        lines.append(f"validation {words} {mean:.4f} ± {deviation:.4f} over {len(values)} seeds ({each})")
    return lines


def to_csv(last: Mapping[int, Row]) -> str:
    """The text of seeds.csv: a row a seed, then the mean and the standard deviation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["seed", *FIGURES])
    columns = [[getattr(row, name) for row in last.values()] for name in FIGURES]
    writer.writerows([seed, *(f"{value:.6f}" for value in figures)] for seed, *figures in zip(last, *columns))
    for name, which in (("mean", 0), ("standard deviation", 1)):
        writer.writerow([name, *(f"{spread(column)[which]:.6f}" for column in columns)])
    return text.getvalue()
