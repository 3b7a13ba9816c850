"""Output folders that aren't empty: refused, or with --overwrite rid of what a run wrote; and two runs in one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runner import ALL, Runner

from ascseg_cli.data.discover import Found
from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.inference.journal import line_of


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


@pytest.mark.parametrize("mode", ["resume", "overwrite"])
def test_what_lies_behind_a_link_is_neither_written_nor_removed(
    runner: Runner, found: Callable[[int], Found], tmp_path: Path, mode: str
) -> None:
    images = found(2)
    runner(images)
    precious = tmp_path / "elsewhere"
    (runner.root / "masks").rename(precious)
    (runner.root / "masks").symlink_to(precious)
    (precious / "000.png").write_bytes(b"precious")
    images.items[0].path.write_bytes(b"")
    assert runner(images, mode=mode).counts["failed"] >= 1
    assert (precious / "000.png").read_bytes() == b"precious"
    assert len(list(precious.iterdir())) == 2


@pytest.mark.parametrize("mode", ["resume", "overwrite"])
def test_a_journal_that_is_a_link_is_refused(
    runner: Runner, found: Callable[[int], Found], tmp_path: Path, mode: str
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_bytes(b"no end of line")
    runner.root.mkdir()
    (runner.root / "journal.jsonl").symlink_to(precious)
    with pytest.raises(OutputError, match=r"journal\.jsonl is a link, or no file"):
        runner(found(1), mode=mode)
    assert precious.read_bytes() == b"no end of line"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(20)
def test_pipes_in_an_output_folder_are_never_waited_for(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(2)
    runner(images)
    before = runner.pictures()
    for name in ("run.json", "masks/000.png"):
        (runner.root / name).unlink()
        os.mkfifo(runner.root / name)
    assert runner(images, mode="resume").resumed == 1
    assert runner.pictures() == before
    (runner.root / "journal.jsonl").unlink()
    os.mkfifo(runner.root / "journal.jsonl")
    with pytest.raises(OutputError, match="is a link, or no file"):
        runner(images, mode="resume")


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
