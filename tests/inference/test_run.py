"""A run over a folder: what it writes, and what becomes of files that fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runner import ALL, Runner

from ascseg_cli.data import decoders
from ascseg_cli.data.discover import Found, Item, Missing
from ascseg_cli.errors import OutputError
from ascseg_cli.inference.settings import KINDS


def test_a_run_writes_a_row_and_every_output_for_each_input(runner: Runner, found: Callable[[int], Found]) -> None:
    summary = runner(found(5))
    assert (summary.counts, summary.state) == ({"ok": 4, "empty": 1}, "finished")
    assert [row["image"] for row in runner.rows()] == [f"00{n}.png" for n in range(5)]
    assert sorted(runner.pictures()) == sorted(
        f"{kind}/00{n}.{'geojson' if kind == 'polygons' else 'png'}" for kind in KINDS for n in range(5)
    )
    first = runner.rows()[0]
    mask = np.asarray(Image.open(runner.root / "masks" / "000.png"))
    assert mask.shape == (60, 80)
    assert set(np.unique(mask)) == {0, 255}
    assert int(first["foreground_pixels"]) == (mask == 255).sum()
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert [int(first[f"box_{side}"]) for side in ("x", "y", "width", "height")] == box
    p = np.asarray(Image.open(runner.root / "probabilities" / "000.png")) / 65535
    np.testing.assert_array_equal(p >= 0.5, mask == 255)
    assert float(first["mean_confidence"]) == pytest.approx(p[mask == 255].mean(), abs=1e-4)


def test_run_json_tells_how_and_nothing_of_who(runner: Runner, found: Callable[[int], Found]) -> None:
    runner(found(2))
    record = runner.record()
    assert record["arguments"] == ["predict", "photos"]
    assert (record["state"], record["counts"]["ok"], record["counts"]["empty"]) == ("finished", 1, 1)
    assert record["weights"]["sha256"] == "0" * 64
    assert record["settings"]["threshold"] == 0.5
    assert (record["backend"], record["device"], record["threads"]) == ("reference", "cpu", 2)
    assert {"ascseg", "python", "numpy", "torch"} <= record["versions"].keys()
    assert record["started"] <= record["ended"]
    text = (runner.root / "run.json").read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert os.uname().nodename not in text if hasattr(os, "uname") else True


def test_bad_files_are_rows_and_the_rest_goes_on(runner: Runner, found: Callable[[int], Found]) -> None:
    good = found(3)
    (good.items[0].path.parent / "bad.png").write_bytes(good.items[0].path.read_bytes()[:200])
    bad = Item(str(good.items[0].path.parent / "bad.png"), "bad.png", "bad")
    gone = Item(str(good.items[0].path.parent / "gone.png"), "gone.png", "gone")
    everything = replace(
        good,
        items=(bad, *good.items, gone),
        missing=(Missing("nowhere", "no such file or folder", before=3), Missing("late", "gone", before=5)),
    )
    summary = runner(everything)
    assert summary.counts == {"failed": 4, "ok": 2, "empty": 1}
    assert [row["image"] for row in runner.rows()] == [
        "bad.png", "000.png", "001.png", "nowhere", "002.png", "gone.png", "late",
    ]  # fmt: skip
    assert [row["status"] for row in runner.rows()] == [
        "failed",
        "ok",
        "empty",
        "failed",
        "ok",
        "failed",
        "failed",
    ]
    assert all(row["reason"] for row in runner.rows() if row["status"] == "failed")
    assert not any("bad" in name or "gone" in name for name in runner.pictures())


def test_probabilities_that_are_no_numbers_are_a_failure_not_an_empty_mask(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.engine, "probabilities", lambda images: np.full((1, 48, 64), np.nan, np.float32))
    assert runner(found(1)).counts == {"failed": 1}
    assert "aren't numbers" in runner.rows()[0]["reason"]
    assert runner.pictures() == {}


def test_a_full_disk_ends_the_run_and_says_what_was_not_reached(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, real, count = found(30), os.replace, 0

    def full(source: str, target: str) -> None:
        nonlocal count
        if Path(target).parent.name == "masks":
            count += 1
            if count > 4:
                raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    summary = runner(images)
    monkeypatch.undo()
    assert summary.full is not None
    assert summary.counts["ok"] + summary.counts["empty"] == 4
    assert summary.counts["skipped"] > 10
    assert sum(summary.counts.values()) == 30
    assert "nothing more can be written" in runner.rows()[-1]["reason"]
    assert runner(images, mode="resume").resumed == 4


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_image(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    images = found(1)
    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(OutputError, match="Read-only"):
        runner(images)
    assert runner.engine.batches == []


def test_a_bug_in_one_image_does_not_lose_the_others(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, real = found(3), decoders.Decoders.read_pixels
    first = images.items[0].path.read_bytes()

    def broken(self: decoders.Decoders, content: bytes, **options: Any) -> np.ndarray:
        return 1 / 0 if content == first else real(self, content, **options)  # type: ignore[return-value]

    monkeypatch.setattr(decoders.Decoders, "read_pixels", broken)
    with pytest.raises(ZeroDivisionError):
        runner(images)
    assert [row["status"] for row in runner.rows()] == ["failed", "empty", "ok"]
    assert "a bug in ascseg: ZeroDivisionError" in runner.rows()[0]["reason"]


def test_too_many_pixels_are_refused_by_name(runner: Runner, found: Callable[[int], Found]) -> None:
    runner(found(2), settings=replace(ALL, max_pixels=4000))
    reasons = [row["reason"] for row in runner.rows()]
    assert "4,800 pixels" in reasons[0]
    assert reasons[1] == ""
