"""The journal's lines: what was written comes back, and what is damaged or forged never passes for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ascseg_cli.errors import OutputError
from ascseg_cli.inference.journal import Journal, line_of
from ascseg_cli.inference.outputs import JOURNAL
from ascseg_cli.inference.postprocess import Findings
from ascseg_cli.inference.results import Result

RESULT = Result("a/b.png", "ok", "", Findings(5, 0.1, 1, (1, 2, 3, 4), 0.9), 8, 6, 0.5, {"masks": "m"}, "0" * 64)


def record() -> dict[str, Any]:
    return RESULT.to_record()


def records(folder: Path) -> list[dict[str, Any]]:
    return list(Journal(folder).records())


def test_what_was_added_comes_back(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.open()
    for name in ("a.png", "b/ü.png", "line\nfeed.png", "a.png"):
        first.add({"image": name, "n": 1})
    first.close()
    again = Journal(tmp_path)
    again.open()
    assert list(again) == ["a.png", "b/ü.png", "line\nfeed.png"]
    assert again.get("b/ü.png") == {"image": "b/ü.png", "n": 1}
    assert again.get("c.png") is None
    again.close()


def test_no_flipped_bit_changes_a_record(tmp_path: Path) -> None:
    whole = line_of(record())
    for place in range(len(whole)):
        for bit in (1, 4, 64):
            spoilt = bytearray(whole)
            spoilt[place] ^= bit
            (tmp_path / JOURNAL).write_bytes(bytes(spoilt) + line_of({"image": "next"}))
            assert {"image": "next"} in records(tmp_path) or place == len(whole) - 1
            assert all(one in ({"image": "next"}, record()) for one in records(tmp_path))
            assert len(records(tmp_path)) < 2


@pytest.mark.parametrize("key", sorted(record()))
@pytest.mark.parametrize("value", ["x", None, [1], {"a": 1}, -1, True])
def test_a_forged_record_gives_a_row_or_counts_as_none(key: str, value: object) -> None:
    """Whoever can write into the folder can forge rows, but never make a run fall over."""
    try:
        result = Result.from_record({**record(), key: value})
    except (KeyError, TypeError, ValueError):
        return
    assert len(result.figures()) == 14
    assert result.status in ("ok", "empty")
    assert isinstance(result.image + result.reason + result.input_sha256, str)


def test_a_line_that_a_full_disk_cut_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Journal(tmp_path)
    book.open()
    book.add({"image": "a"})
    real = book._writer
    assert real is not None

    class Full:
        """Takes ten bytes more."""

        def write(self, line: bytes) -> int:
            return real.write(line[:10])

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(book, "_writer", Full())
    with pytest.raises(OutputError, match=os.strerror(28)):
        book.add({"image": "b"})
    monkeypatch.undo()
    book.add({"image": "c"})
    book.close()
    assert (tmp_path / JOURNAL).read_bytes() == line_of({"image": "a"}) + line_of({"image": "c"})
