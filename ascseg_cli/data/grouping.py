"""What must stay together in one part of a split: a patient's images, a video's frames.

By a column of a CSV file (`patients.csv:patient_id`), or by a regular expression with one group that is searched
in each image's path below the data set's folder (`(patient\\d+)/`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.table import read_table, rows_of
from ascseg_cli.errors import DataError, UsageError

_TABLE = re.compile(r"(.+\.csv):(.+)", re.IGNORECASE | re.DOTALL)


def group(pairs: Sequence[Pair], by: str, root: Path) -> tuple[Pair, ...]:
    """The pairs with their groups, and without official parts, which might divide a group.

    Raises UsageError for a pattern that isn't one; DataError where an image has no group.
    """
    table = _TABLE.fullmatch(by)
    names = _by_column(pairs, Path(table[1]), table[2]) if table else _by_pattern(pairs, by, root)
    without = [pair for pair in pairs if not names.get(pair)]
    if without:
        raise DataError(
            f"{len(without)} of {len(pairs)} images have no group by {by!r}, the first is {without[0].image}",
            "give each image that stands alone a group of its own name",
        )
    return tuple(replace(pair, part=None, group=names[pair]) for pair in pairs)


def _by_column(pairs: Sequence[Pair], path: Path, column: str) -> dict[Pair, str]:
    """Rows of images that aren't here are passed over: such tables are often about more than one folder."""
    known = {pair.image.name for pair in pairs} | {pair.stem for pair in pairs}
    rows = [row for row in read_table(path, column) if re.split(r"[\\/]", row.image)[-1] in known]
    names = {}
    for pair, found in rows_of(path, rows, pairs).items():
        if len({row.value for row in found}) > 1:
            raise DataError(
                f"{path} puts {pair.image.name} into two groups, {found[0].value} and {found[1].value}"
            )
        names[pair] = found[0].value
    return names


def _by_pattern(pairs: Sequence[Pair], text: str, root: Path) -> dict[Pair, str]:
    hint = r"for example '(patient\d+)', or a table: FILE.csv:COLUMN"
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}", hint) from error
    if pattern.groups != 1:
        raise UsageError(
            f"{text!r} has {pattern.groups} groups in parentheses; it needs one, the group's name", hint
        )
    matches = {pair: pattern.search(pair.image.relative_to(root).as_posix()) for pair in pairs}
    return {pair: match[1] for pair, match in matches.items() if match and match[1]}
