"""What `--tensorboard` writes, read by TensorBoard's own reader, stands for the rows of log.csv."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
from killed_training import ENVIRONMENT

from ascseg_cli.errors import MissingExtraError
from ascseg_cli.training import events
from ascseg_cli.training.files import RunFolder
from ascseg_cli.training.log import Row, to_csv


def _row(step: int, iou: float) -> Row:
    return Row(
        step=step, epoch=step / 7, seconds=3.5 * step, loss=1 / step, validation_iou=iou, validation_dice=0.8,
        threshold=0.45, rate=1e-3, images_per_second=12.5,
    )  # fmt: skip


READ = """
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1])
found.Reload()
for tag in found.Tags()["scalars"]:
    print(tag, *(f"{one.step}:{one.value!r}" for one in found.Scalars(tag)), sep=",")
"""


def test_tensorboards_reader_finds_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` isn't installed")
    folder, rows = RunFolder(tmp_path), [_row(10, 0.5), _row(20, math.nan), _row(1000, 0.75)]
    for row in [*rows, rows[1]]:  # one is done again after a kill
        folder.write(events.file_name(row), events.content(row))
    folder.write("log.csv", to_csv(rows))
    # a process of its own: the reader's imports warn
    told = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    found = {line.split(",")[0]: line.split(",")[1:] for line in told.stdout.splitlines()}
    with (tmp_path / "log.csv").open() as file:
        logged = list(csv.DictReader(file))
    for name in ("loss", "epoch", "rate", "images_per_second", "threshold", "validation_iou", "validation_dice"):
        tag = {"validation_iou": "validation/IoU", "validation_dice": "validation/Dice"}.get(name, name)
        got = [(int(step), float(value)) for step, _, value in (one.partition(":") for one in found[tag])]
        want = [(int(row["step"]), float(row[name])) for row in logged]
        assert [step for step, _ in got] == [step for step, _ in want]
        assert [v for _, v in got] == pytest.approx([v for _, v in want], rel=1e-5, nan_ok=True)
    folder.write("settings.toml", "")
    (tmp_path / "mine.txt").write_text("stays")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match="--tensorboard needs the extra `tensorboard`"):
        events.check_extra()
