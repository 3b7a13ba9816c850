"""What must stay together in one part of a split: a patient's images, a video's frames.

By a column of a CSV file (`patients.csv:patient_id`), or by a regular expression with one group that is searched
in each image's path below the data set's folder (`(patient\\d+)/`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.table import read_table, rows_of
from ascseg_cli.errors import DataError, UsageError

_TABLE = re.compile(r"(.+\.csv):(.+)", re.IGNORECASE | re.DOTALL)


def group(pairs: Sequence[Pair], by: str, root: Path) -> tuple[Pair, ...]:
    """The pairs with their groups, and without official parts, which might divide a group.

    Raises as `groups_of`.
    """
    groups = groups_of([str(pair.image) for pair in pairs], by, root)
    return tuple(replace(pair, part=None, group=name) for pair, name in zip(pairs, groups))


def groups_of(images: Sequence[str], by: str, root: Path) -> list[str]:
    """The group of each image.

    images  paths of their files, below `root`
    Raises UsageError for a pattern that isn't one; DataError where an image has no group.
    """
    table = _TABLE.fullmatch(by)
    names = list(_by_column(images, Path(table[1]), table[2]) if table else _by_pattern(images, by, root))
    without = [image for image, name in zip(images, names) if not name]
    if without:
        raise DataError(
            f"{len(without)} of {len(images)} images have no group by {by!r}, the first is {without[0]}",
            "give each image that stands alone a group of its own name",
        )
    return names


def table_of(by: str) -> Path | None:
    """The table that a rule names; None where it is a pattern."""
    table = _TABLE.fullmatch(by)
    return Path(table[1]) if table else None


def _by_column(images: Sequence[str], path: Path, column: str) -> Iterator[str]:
    """Rows of images that aren't here are passed over: such tables are often about more than one folder."""
    known = {Path(image).name for image in images} | {Path(image).stem for image in images}
    rows = [row for row in read_table(path, column) if re.split(r"[\\/]", row.image)[-1] in known]
    found = rows_of(path, rows, images)
    for place, image in enumerate(images):
        values = list(dict.fromkeys(row.value for row in found.get(place, ())))
        if len(values) > 1:
            raise DataError(f"{path} puts {Path(image).name} into two groups, {values[0]} and {values[1]}")
        yield values[0] if values else ""


def _by_pattern(images: Sequence[str], text: str, root: Path) -> Iterator[str]:
    hint = r"for example '(patient\d+)', or a table: FILE.csv:COLUMN"
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}", hint) from error
    if pattern.groups != 1:
        raise UsageError(
            f"{text!r} has {pattern.groups} groups in parentheses; it needs one, the group's name", hint
        )
    for image in images:
        match = pattern.search(Path(image).relative_to(root).as_posix())
        yield (match[1] or "") if match else ""
