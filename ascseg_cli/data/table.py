"""A CSV file that says something of each image: its part, its patient. One row an image, found by its name.

A row names an image by its file's name, with or without the suffix, after none, some or all of its folders.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: its number as an editor counts, the image it names, and the value of the column."""

    line: int
    image: str
    value: str


def read_table(path: Path, column: str, *, image_column: str | None = None) -> list[Row]:
    """The rows of a CSV file with a header, with the value of one column.

    image_column  the column that names images; None: `image` where there is one, else the first
    Raises DataError where the file or one of the columns is missing, or a line has too few cells.
    """
    lines = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        named = image_column or ("image" if "image" in header else next(iter(header), "image"))
        places = [_place(path, header, name) for name in (named, column)]
        rows = [(lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: not CSV ({error})") from error
    for line, cells in rows:
        if len(cells) <= max(places):
            raise DataError(f"{path}, line {line}: {len(cells)} cells, the header has {len(header)}")
    return [Row(line, *(cells[place].strip() for place in places)) for line, cells in rows]


def rows_of(path: Path, rows: Sequence[Row], images: Sequence[str]) -> dict[int, list[Row]]:
    """The rows that name each image, by the image's place, for images that are named.

    images  paths of their files
    Raises DataError where a row names no image, or several.
    """
    named: dict[tuple[str, ...], list[int]] = {_parts(row.image): [] for row in rows}
    lengths = {len(parts) for parts in named}
    for place, image in enumerate(images):
        *folders, name = _parts(image)
        for last in {name, _parts(Path(image).stem)[-1]}:
            parts = (*folders, last)
            for end in (parts[-length:] for length in lengths if length <= len(parts)):
                if end in named:
                    named[end].append(place)
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        meant = named[_parts(row.image)]
        if len(meant) != 1:
            what = f"means {len(meant)} images: add its folder" if meant else "is no image with a mask here"
            raise DataError(f"{path}, line {row.line}: {row.image!r} {what}")
        found[meant[0]].append(row)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error


def _place(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise DataError(
            f"{path} has no column {name!r}; its columns are {', '.join(header) or 'none'}",
            "the first line names the columns, separated by commas",
        )
    return header.index(name)


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a path, however its system writes them; `.` and empty parts don't count."""
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".")) or ("",)
