"""A run over a folder: what it writes, what --resume keeps and redoes, what --overwrite removes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ascseg_cli.data import decoders
from ascseg_cli.data.discover import Found, Item, Missing
from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.inference import run_record, work
from ascseg_cli.inference.journal import line_of
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.postprocess import Cleaning
from ascseg_cli.inference.run import Run, Summary
from ascseg_cli.inference.settings import KINDS, Settings

ALL = Settings(threshold=0.5, save=KINDS)


class Runner:
    """Runs into one folder, and remembers what was said."""

    def __init__(self, engine: Any, root: Path) -> None:
        self.engine, self.root = engine, root
        self.warnings: list[str] = []

    def __call__(self, found: Found, mode: str = "new", settings: Settings = ALL, stop_after: int = 0) -> Summary:
        self.results = []

        def seen(result: Any) -> None:
            self.results.append(result)
            if len(self.results) == stop_after:
                run.stop()

        self.warnings.clear()
        run = Run(
            found, self.engine, settings, OutputFolder(self.root),
            mode=mode, threads=2, arguments=["predict", "photos"], on_result=seen, warn=self.warnings.append,
        )  # fmt: skip
        return run()

    def rows(self) -> list[dict[str, str]]:
        with open(self.root / "results.csv", encoding="utf-8", newline="") as file:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]

    def pictures(self) -> dict[str, bytes]:
        """Everything but the records."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and path.parent != self.root)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}

    def record(self) -> dict[str, Any]:
        return json.loads((self.root / "run.json").read_bytes())


@pytest.fixture
def runner(engine, tmp_path: Path) -> Runner:
    return Runner(engine, tmp_path / "out")


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
    bad = Item(good.items[0].path.parent / "bad.png", "bad.png", "bad")
    gone = Item(good.items[0].path.parent / "gone.png", "gone.png", "gone")
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


def test_an_interrupted_run_is_resumed_to_the_same_bytes(
    runner: Runner, engine, found: Callable[[int], Found]
) -> None:
    images = found(30)
    summary = runner(images, stop_after=5)
    assert summary.interrupted
    assert summary.counts["skipped"] >= 10
    assert [row["status"] for row in runner.rows()][-1] == "skipped"
    assert runner.record()["state"] == "interrupted"
    done = {path: (runner.root / path).stat().st_mtime_ns for path in runner.pictures()}
    again = runner(images, mode="resume")
    assert again.resumed == len(done) / len(KINDS)
    assert not again.redone
    assert all((runner.root / path).stat().st_mtime_ns == when for path, when in done.items())
    whole = Runner(engine, runner.root.parent / "whole")
    whole(images)
    assert runner.pictures() == whole.pictures()
    assert runner.rows() == whole.rows()
    assert len(runner.record()["earlier_runs"]) == 1


def test_resume_in_a_new_folder_is_a_new_run(runner: Runner, found: Callable[[int], Found]) -> None:
    assert runner(found(3), mode="resume").counts == {"ok": 2, "empty": 1}


def test_resume_redoes_exactly_what_is_not_there_whole(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(8)
    runner(images)
    before = runner.pictures()
    (runner.root / "masks/000.png").unlink()
    overlay = runner.root / "overlays/002.png"
    overlay.write_bytes(overlay.read_bytes()[:-20])
    (runner.root / "masks/003.png").write_bytes((runner.root / "overlays/003.png").read_bytes()[:100])
    polygons = runner.root / "polygons/004.geojson"
    polygons.write_bytes(polygons.read_bytes()[:-5])
    Image.new("L", (3, 3)).save(runner.root / "masks/005.png")
    (runner.root / "probabilities/006.png").write_bytes(b"")
    summary = runner(images, mode="resume")
    assert dict(summary.redone) == {"an output is missing or damaged": 6}
    assert summary.resumed == 2
    assert runner.pictures() == before


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (replace(ALL, threshold=0.25), "threshold 0.5 → 0.25"),
        (replace(ALL, tta=True), "tta False → True"),
        (replace(ALL, cleaning=Cleaning(min_area=9)), "min-area 0 → 9"),
    ],
)
def test_other_settings_are_said_and_redone(
    runner: Runner, engine, found: Callable[[int], Found], settings: Settings, word: str
) -> None:
    images = found(3)
    runner(images)
    summary = runner(images, mode="resume", settings=settings)
    assert word in " ".join(runner.warnings)
    assert summary.resumed == 0
    fresh = Runner(engine, runner.root.parent / "fresh")
    fresh(images, settings=settings)
    assert runner.pictures() == fresh.pictures()
    assert runner(images, mode="resume", settings=settings).resumed == 3


def test_other_weights_are_redone(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(2)
    runner(images)
    runner.engine.weights_sha256 = "1" * 64
    assert runner(images, mode="resume").resumed == 0
    assert "weights green 00000000 → green 11111111" in runner.warnings[0]


def test_a_changed_input_is_redone_and_one_that_broke_leaves_nothing_stale(
    runner: Runner, found: Callable[[int], Found]
) -> None:
    images = found(4)
    runner(images)
    images.items[2].path.write_bytes(images.items[3].path.read_bytes())
    images.items[0].path.write_bytes(b"")
    summary = runner(images, mode="resume")
    assert dict(summary.redone) == {"the image has changed": 2}
    assert [row["status"] for row in runner.rows()] == ["failed", "empty", "ok", "ok"]
    pictures = runner.pictures()
    assert pictures["masks/002.png"] == pictures["masks/003.png"]
    assert not any("000" in name for name in pictures)


def test_more_kinds_than_before_are_made_and_fewer_are_kept(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(2)
    runner(images, settings=replace(ALL, save=("masks",)))
    assert runner(images, mode="resume", settings=ALL).resumed == 0
    assert len(runner.pictures()) == 8
    assert runner(images, mode="resume", settings=replace(ALL, save=("masks",))).resumed == 2


def test_a_kill_while_an_image_is_redone_leaves_it_undone(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = found(1)
    runner(images)
    before = runner.pictures()

    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "geojson", killed)
    with pytest.raises(KeyboardInterrupt):
        runner(images, mode="resume", settings=replace(ALL, threshold=0.9))
    monkeypatch.undo()
    assert runner(images, mode="resume").resumed == 0
    assert runner.pictures() == before


def test_a_torn_journal_line_costs_one_image(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(3)
    runner(images)
    journal = runner.root / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    assert runner(images, mode="resume").resumed == 2
    assert runner(images, mode="resume").resumed == 3


@pytest.mark.parametrize(
    "rubbish",
    [
        b"{}\n", b"[1]\n", b"nonsense\n", b"\xff\xfe\n", b"\n", b'{"image": "000.png"}\n', b"[" * 100_000 + b"\n",
        line_of({"image": 3}), line_of({"image": "000.png"}), line_of({"image": "x"})[1:],
    ],
)  # fmt: skip
def test_rubbish_in_the_journal_is_survived(runner: Runner, found: Callable[[int], Found], rubbish: bytes) -> None:
    images = found(2)
    runner(images)
    with open(runner.root / "journal.jsonl", "ab") as file:
        file.write(rubbish)
    assert runner(images, mode="resume").resumed >= 1


@pytest.mark.parametrize("key", ["settings", "weights", "earlier_runs", "counts"])
@pytest.mark.parametrize("value", ["[]", "1e999", "null", '{"a": NaN}', "[" * 5000])
def test_rubbish_in_run_json_is_survived(tmp_path: Path, key: str, value: str) -> None:
    base = '"format": 1, "settings": {}, "weights": {}, "earlier_runs": []'
    (tmp_path / "run.json").write_text(f'{{{base}, "{key}": {value}}}')
    earlier = run_record.read(OutputFolder(tmp_path))
    assert earlier is None or run_record.json_bytes(earlier)


def test_a_folder_with_files_is_refused(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(1)
    runner.root.mkdir()
    (runner.root / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="isn't empty") as caught:
        runner(images)
    assert "--overwrite" in caught.value.hint
    with pytest.raises(UsageError, match="no earlier run to resume"):
        runner(images, mode="resume")
    assert [path.name for path in runner.root.iterdir()] == ["notes.txt"]
    assert runner(images, mode="overwrite").counts == {"ok": 1}
    with pytest.raises(UsageError, match="isn't empty") as caught:
        runner(images)
    assert "--resume goes on" in caught.value.hint


def test_a_file_is_no_output_folder(runner: Runner, found: Callable[[int], Found]) -> None:
    runner.root.write_text("a file", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        runner(found(1), mode="overwrite")


def test_overwrite_removes_what_a_run_wrote_and_no_foreign_file(
    runner: Runner, engine, found: Callable[[int], Found]
) -> None:
    runner(found(6))
    (runner.root / "masks" / "by_hand.png").write_bytes(b"mine")
    (runner.root / "notes.txt").write_bytes(b"mine")
    summary = runner(found(2), mode="overwrite", settings=replace(ALL, save=("masks",)))
    assert summary.resumed == 0
    assert sorted(runner.pictures()) == ["masks/000.png", "masks/001.png", "masks/by_hand.png"]
    assert (runner.root / "notes.txt").read_bytes() == b"mine"
    assert not (runner.root / "polygons").exists()


@pytest.mark.parametrize(
    "named",
    [
        {"masks": "masks/../../precious.png"},
        {"masks": "/etc/precious.png"},
        {"x": "x/a.png"},
        {"masks": "precious.png"},
        3,
    ],
)
def test_a_forged_journal_removes_nothing_outside(
    runner: Runner, found: Callable[[int], Found], named: object, tmp_path: Path
) -> None:
    (tmp_path / "precious.png").write_bytes(b"precious")
    runner(found(1))
    (runner.root / "precious.png").write_bytes(b"precious")
    with open(runner.root / "journal.jsonl", "ab") as file:
        file.write(line_of({"image": "x", "outputs": named}))
    runner(found(1), mode="overwrite")
    assert (tmp_path / "precious.png").exists()
    assert (runner.root / "precious.png").exists()


def test_two_runs_never_write_into_one_folder(runner: Runner, engine, found: Callable[[int], Found]) -> None:
    images = found(3)
    other = Runner(engine, runner.root)
    refused: list[str] = []

    def begin_another(_: np.ndarray) -> np.ndarray:
        for mode in ("resume", "overwrite"):
            with pytest.raises(OutputError, match="another run is writing"):
                other(images, mode=mode)
            refused.append(mode)
        return np.full((1, 48, 64), 0.5, np.float32)

    engine.probabilities = begin_another
    assert runner(images).counts == {"ok": 3}
    assert refused == ["resume", "overwrite"] * 3
    del engine.probabilities
    assert other(images, mode="resume").resumed == 3


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
