"""log.csv: one row for each validation of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Row:
    """Where a run stood at one check.

    loss               mean over the steps since the check before
    validation_*       pooled IoU and mean Dice of the averaged weights at the images' own sizes, at `threshold`
    rate               learning rate of the last step
    images_per_second  since the check before, validation left out
    """

    step: int
    epoch: float
    seconds: float
    loss: float
    validation_iou: float
    validation_dice: float
    threshold: float
    rate: float
    images_per_second: float


def to_csv(rows: Sequence[Row]) -> str:
    """The text of log.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows(
        [f"{getattr(row, name):.6g}" if name != "step" else row.step for name in names] for row in rows
    )
    return text.getvalue()
