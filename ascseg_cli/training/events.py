"""Events for TensorBoard beside log.csv, by the extra `tensorboard`: one small file for each validation.

TensorBoard reads the files of a folder in the order of their names and never turns back, so each appears whole,
and a step that is done again after a kill replaces its own file.
"""

from __future__ import annotations

import io
import re
import time
from dataclasses import asdict

from ascseg_cli.errors import MissingExtraError
from ascseg_cli.training.log import Row

EVENTS = re.compile(r"events\.out\.tfevents\.\d{7,}\.ascseg")
_TAGS = {"validation_iou": "validation/IoU", "validation_dice": "validation/Dice"}


def check_extra() -> None:
    """Raise MissingExtraError where TensorBoard's package isn't there."""
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--tensorboard", "tensorboard") from error


def file_name(row: Row) -> str:
    """Where a row's events belong, in the run's folder."""
    return f"events.out.tfevents.{row.step:07}.ascseg"


def content(row: Row) -> bytes:
    """A row of log.csv as an events file: a scalar for each figure, at its step."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file, now = io.BytesIO(), time.time()
    figures = {name: value for name, value in asdict(row).items() if name not in ("step", "seconds")}
    scalars = [Summary.Value(tag=_TAGS.get(name, name), simple_value=value) for name, value in figures.items()]
    writer = RecordWriter(file)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    writer.write(Event(wall_time=now, step=row.step, summary=Summary(value=scalars)).SerializeToString())
    return file.getvalue()
