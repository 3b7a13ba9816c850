"""results.csv: RFC 4180, one row an input, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from ascseg_cli.inference.postprocess import Findings
from ascseg_cli.inference.results import COLUMNS, Result, Table

GOOD = Result(
    "a/b.png",
    "ok",
    "",
    Findings(12, 1 / 3, 2, (1, 2, 3, 4), 0.87654321),
    6,
    7,
    0.123456,
    {"masks": "masks/a/b.png"},
    "ff",
)


def table(*results: Result) -> bytes:
    file = io.BytesIO()
    rows = Table(file)
    for result in results:
        rows.add(result)
    return file.getvalue()


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def test_the_first_columns_and_a_good_row() -> None:
    content = table(GOOD)
    assert content.startswith(b"image,status,reason,foreground_pixels,")
    assert content.count(b"\r\n") == 2
    assert content.count(b"\n") == 2
    (row,) = read(content)
    assert tuple(row) == COLUMNS
    assert (row["image"], row["status"], row["reason"]) == ("a/b.png", "ok", "")
    assert [row[f"box_{side}"] for side in ("x", "y", "width", "height")] == ["1", "2", "3", "4"]
    assert (row["foreground_fraction"], row["mean_confidence"], row["seconds"]) == (
        "0.333333",
        "0.876543",
        "0.1235",
    )


def test_blank_where_there_is_nothing_to_say() -> None:
    empty = Result("e.png", "empty", findings=Findings(0, 0.0, 0, None, None), width=3, height=4, seconds=0.1)
    first, second = read(table(empty, Result("f.png", "failed", "the file is empty")))
    assert (first["foreground_pixels"], first["components"], first["foreground_fraction"]) == ("0", "0", "0.0")
    assert (first["box_x"], first["mean_confidence"]) == ("", "")
    assert (second["reason"], second["foreground_pixels"], second["seconds"]) == ("the file is empty", "", "")


@pytest.mark.parametrize(
    "name", ["a,b.png", 'a"b.png', "a\nb.png", "폴립 사진.png", "🙂.png", " a.png", "a;b.png"]
)
def test_any_name_comes_back(name: str) -> None:
    (row,) = read(table(Result(name, "failed", "x")))
    assert row["image"] == name


@pytest.mark.parametrize(
    "name", ["=1+1.png", "+a.png", "-a.png", "@SUM(A1).png", "\ta.png", "%0a.png", "|cmd.png"]
)
def test_no_name_is_a_formula_and_it_still_names_the_file(name: str) -> None:
    (row,) = read(table(Result(name, "failed", name)))
    assert row["image"] == f"./{name}"
    assert row["reason"][0] not in "=+-@\t%|"


def test_a_name_that_is_not_utf8_does_not_break_the_file() -> None:
    assert "\\udcff" in table(Result("a\udcff.png", "failed", "x")).decode("utf-8")


def test_tiny_fractions_are_not_rounded_away() -> None:
    found = Findings(1, 1e-8, 1, (0, 0, 1, 1), 0.5)
    (row,) = read(table(Result("a", "ok", findings=found)))
    assert float(row["foreground_fraction"]) == 1e-8


def test_a_record_gives_the_same_row_again() -> None:
    record = json.loads(json.dumps(GOOD.to_record()))
    again = Result.from_record(record)
    assert again.resumed
    assert table(again) == table(GOOD)


@pytest.mark.parametrize(
    "record", [{}, {"image": "a"}, {"image": "a", "status": "ok", "findings": 3}, {"image": "a", "x": 1}]
)
def test_other_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        Result.from_record(record)
