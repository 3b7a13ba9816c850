"""A split that the user states: a CSV file `image,part`, as `Split.csv()` writes it too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import PARTS, Split
from ascseg_cli.data.table import read_table, rows_of
from ascseg_cli.errors import DataError


def read_split(path: Path, pairs: Sequence[Pair]) -> Split:
    """The pairs in the parts that the file says; those that it doesn't name are in none, and `rule` counts them.

    Raises DataError for a part of another name, an image in two parts, a row that names no image, or several.
    """
    rows = read_table(path, "part", image_column="image")
    for row in rows:
        if row.value not in PARTS:
            raise DataError(f"{path}, line {row.line}: part {row.value!r} is none of {', '.join(PARTS)}")
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    named = {pairs[i]: found for i, found in rows_of(path, rows, [str(pair.image) for pair in pairs]).items()}
    for pair in sorted(named, key=lambda pair: (pair.stem, str(pair.image))):
        first = named[pair][0]
        other = next((row for row in named[pair] if row.value != first.value), None)
        if other is not None:
            raise DataError(
                f"{path}: {pair.image.name} is in two parts, {first.value} (line {first.line}) "
                f"and {other.value} (line {other.line})"
            )
        parts[first.value].append(pair)
    unnamed = len(pairs) - len(named)
    words = f"as {path.name} says" + (f"; {unnamed} images that it doesn't name left out" if unnamed else "")
    return Split(words, *(tuple(parts[part]) for part in PARTS))
