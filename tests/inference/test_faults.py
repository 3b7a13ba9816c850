"""Faults of disks, file systems and inputs amid a run: every input keeps its row, and nothing half is left."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import mounted

from ascseg_cli.data import source
from ascseg_cli.data.discover import Found, Item
from ascseg_cli.data.source import file_bytes
from ascseg_cli.errors import InputError, OutputError
from ascseg_cli.inference import journal
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.run import Run, Summary
from ascseg_cli.inference.settings import KINDS, Settings

RECORDS = {"run.json", "journal.jsonl", "results.csv"}


def run(engine: Any, found: Found, root: Path, mode: str = "resume", said: list[str] | None = None) -> Summary:
    warn = (said if said is not None else []).append
    return Run(
        found, engine, Settings(0.5, save=KINDS), OutputFolder(root),
        mode=mode, threads=2, arguments=[], on_result=lambda _: None, warn=warn,
    )()  # fmt: skip


def rows(root: Path) -> list[dict[str, str]]:
    with open(root / "results.csv", encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def pictures(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.name not in RECORDS)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "40k") as disk:
        yield disk


def resize(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_resume_goes_on(
    engine, found: Callable[[int], Found], small_disk: Path, tmp_path: Path
) -> None:
    images = found(20)
    run(engine, images, tmp_path / "whole")
    for size in ("48k", "80k", "120k"):
        resize(small_disk, f"size={size}")
        summary = run(engine, images, small_disk / "out")
        assert summary.full is not None
        assert "No space left" in summary.full.message
        assert summary.full.hint == "free some space"
        assert not [path for path in pictures(small_disk / "out") if ".ascseg-" in path]
        told = rows(small_disk / "out") if (small_disk / "out" / "results.csv").exists() else []
        assert len(told) in (0, 20)
        assert all("free some space" not in row["reason"] for row in told), "the hint is said once, at the end"
    resize(small_disk, "size=8m")
    summary = run(engine, images, small_disk / "out")
    assert summary.full is None
    assert 0 < summary.resumed < 20
    assert pictures(small_disk / "out") == pictures(tmp_path / "whole")
    assert rows(small_disk / "out") == rows(tmp_path / "whole")


def test_a_table_that_does_not_fit_ends_the_run_and_loses_no_mask(
    engine, found: Callable[[int], Found], small_disk: Path, tmp_path: Path
) -> None:
    images = found(1)
    many = Found(tuple(Item(images.items[0].where, f"{n:0200}.png", f"{n}") for n in range(200)))
    resize(small_disk, "size=60k,nr_inodes=20")
    summary = run(engine, many, small_disk / "out")
    assert summary.full is not None
    assert not list((small_disk / "out").rglob(".ascseg-*"))
    resize(small_disk, "size=30m,nr_inodes=5000")
    assert run(engine, many, small_disk / "out").counts == {"ok": 200}
    assert len(rows(small_disk / "out")) == 200


def test_a_read_only_disk_is_one_line_before_the_first_image(
    engine, found: Callable[[int], Found], small_disk: Path
) -> None:
    resize(small_disk, "ro")
    with pytest.raises(OutputError, match="Read-only") as caught:
        run(engine, found(1), small_disk / "out")
    assert caught.value.hint
    assert engine.batches == []


def test_inputs_that_vanish_or_turn_into_something_else_are_rows(
    engine, found: Callable[[int], Found], tmp_path: Path
) -> None:
    images = found(8)
    paths = [item.path for item in images.items]
    for path in paths[2:8]:
        path.unlink()
    paths[3].mkdir()
    os.mkfifo(paths[4]) if hasattr(os, "mkfifo") else paths[4].mkdir()
    paths[5].symlink_to("/dev/zero")
    paths[6].symlink_to(paths[6])
    paths[7].symlink_to("/proc/self/mem")
    assert run(engine, images, tmp_path / "out").counts == {"ok": 1, "empty": 1, "failed": 6}
    assert [row["image"] for row in rows(tmp_path / "out")] == [item.name for item in images.items]
    reasons = [row["reason"] for row in rows(tmp_path / "out")]
    assert "no such file" in reasons[2]
    assert all(reasons[2:])
    assert sorted(pictures(tmp_path / "out")) == sorted(
        f"{kind}/{n:03}.{'geojson' if kind == 'polygons' else 'png'}" for n in (0, 1) for kind in KINDS
    )


@pytest.mark.parametrize("change", ["append", "rewrite", "truncate"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, real = tmp_path / "growing.png", os.fstat
    path.write_bytes(bytes(1000))
    os.utime(path, (0, 0))
    assert len(file_bytes(path, 100)) == 1000
    looked = 0

    def and_change(descriptor: int) -> os.stat_result:
        nonlocal looked
        status, looked = real(descriptor), looked + 1
        if looked == 1:
            with open(path, {"append": "ab", "rewrite": "r+b", "truncate": "r+b"}[change]) as file:
                file.truncate(10) if change == "truncate" else file.write(b"more")
        return status

    monkeypatch.setattr(source.os, "fstat", and_change)
    with pytest.raises(InputError, match="changed while it was read"):
        file_bytes(path, 100)


def test_a_file_system_without_hard_links_and_with_slow_renames(
    engine, found: Callable[[int], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, rename = found(6), os.replace
    run(engine, images, tmp_path / "whole")

    def slow(old: Any, new: Any) -> None:
        time.sleep(0.02)
        rename(old, new)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "replace", slow)
    monkeypatch.setattr(os, "link", refused)
    run(engine, images, tmp_path / "out")
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EBUSY, errno.EACCES])
def test_a_rename_that_fails_once_costs_one_image_until_it_is_resumed(
    engine, found: Callable[[int], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    images, rename = found(4), os.replace
    run(engine, images, tmp_path / "whole")

    def once(old: Any, new: Any) -> None:
        if Path(new).name == "002.png" and Path(new).parent.name == "overlays":
            raise OSError(number, os.strerror(number))
        rename(old, new)

    monkeypatch.setattr(os, "replace", once)
    assert run(engine, images, tmp_path / "out").counts["failed"] == 1
    assert "002.png" not in " ".join(pictures(tmp_path / "out")), "no output without its row"
    monkeypatch.undo()
    assert run(engine, images, tmp_path / "out").resumed == 3
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")


def test_where_files_can_not_be_locked_it_is_said(
    engine, found: Callable[[int], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(journal, "_lock", unsupported)
    said: list[str] = []
    assert run(engine, found(2), tmp_path / "out", said=said).counts == {"ok": 1, "empty": 1}
    assert any("can't be locked" in line for line in said)


def test_a_second_process_is_refused_while_the_first_runs(
    engine, found: Callable[[int], Found], tmp_path: Path
) -> None:
    images, output, real = found(2), tmp_path / "out", engine.probabilities
    script = str(Path(__file__).with_name("killed_run.py"))
    command = [sys.executable, script, str(images.items[0].path.parent), str(output)]
    second: list[subprocess.CompletedProcess[str]] = []

    def begin_another(batch: np.ndarray) -> np.ndarray:
        if not second:
            second.append(subprocess.run(command, capture_output=True, text=True, check=False))
        return real(batch)

    engine.probabilities = begin_another
    assert run(engine, images, output).counts == {"ok": 1, "empty": 1}
    assert second[0].returncode != 0
    assert "another run is writing into" in second[0].stderr
    engine.probabilities = real
    assert run(engine, images, output).resumed == 2


def test_inputs_that_left_are_told_and_their_outputs_stay(
    engine, found: Callable[[int], Found], tmp_path: Path
) -> None:
    images, said = found(5), []
    run(engine, images, tmp_path / "out")
    before = pictures(tmp_path / "out")
    run(engine, Found(images.items[:3]), tmp_path / "out", said=said)
    assert said == ["2 images of the earlier run aren't among the inputs now; outputs stay (first: 003.png)"]
    assert pictures(tmp_path / "out") == before
    assert len(rows(tmp_path / "out")) == 3


def test_a_decoder_that_is_killed_amid_a_run_costs_nothing(
    engine, found: Callable[[int], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ascseg_cli.data import decoders

    images, said, real = found(10), [], decoders._Process.read_pixels
    run(engine, images, tmp_path / "whole")
    seen: set[bytes] = set()

    def and_kill(self: decoders._Process, content: bytes, *arguments: Any) -> np.ndarray:
        if content not in seen and len(seen) % 3 == 0:
            self._process.kill()
        seen.add(content)
        return real(self, content, *arguments)

    monkeypatch.setattr(decoders._Process, "read_pixels", and_kill)
    assert run(engine, images, tmp_path / "out", said=said).counts["failed"] == 0
    assert pictures(tmp_path / "out") == pictures(tmp_path / "whole")
    assert len(said) >= 3
    assert all("its decoder crashed" in line for line in said)


def test_a_folder_that_vanishes_amid_a_run_is_an_error_in_words(
    engine, found: Callable[[int], Found], tmp_path: Path
) -> None:
    images, output = found(12), tmp_path / "out"
    real = engine.probabilities

    def remove(batch: np.ndarray) -> np.ndarray:
        if len(engine.batches) == 6:
            shutil.rmtree(output, ignore_errors=True)
        return real(batch)

    engine.probabilities = remove
    with pytest.raises(OutputError, match="No such file"):
        run(engine, images, output)
