"""One process of a cluster: the model loaded once, then shard after shard, by the code that runs on one machine.

It writes the outputs and tells what it did; only the process that leads the run writes the journal. So an image
whose worker died before it told is done again, with the same outcome, and recorded once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ascseg_cli import __version__
from ascseg_cli.cluster.shards import Shard
from ascseg_cli.data import appearance
from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Item
from ascseg_cli.data.remote import Place
from ascseg_cli.errors import AscsegError, OutputError
from ascseg_cli.inference.destination import destination
from ascseg_cli.inference.engine import Engine, open_engine
from ascseg_cli.inference.likeness import SAMPLE
from ascseg_cli.inference.outputs import JOURNAL
from ascseg_cli.inference.pipeline import Pipeline
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.resume import Earlier
from ascseg_cli.inference.settings import Settings
from ascseg_cli.inference.work import Work
from ascseg_cli.network.metadata import Metadata

STALE = "stale"  # the status of an image whose earlier result doesn't stand: its record must be taken back first


@dataclass(frozen=True)
class Job:
    """What every worker needs to know; sent once.

    weights  the content of the file, so that no other machine needs to have it
    place    where outputs go
    """

    weights: bytes
    weights_name: str
    settings: Settings
    place: Place
    device: str
    backend: str
    threads: int
    resume: bool


@dataclass
class Introduction:
    """What a worker says of itself when it is ready: all that run.json tells of an engine, and where it runs."""

    metadata: Metadata
    weights_sha256: str
    backend: str
    backend_note: str
    device: str
    version: str
    machine: str
    pid: int

    @property
    def kind(self) -> tuple[str, ...]:
        """Equal for workers whose results agree."""
        return self.version, self.weights_sha256, self.backend, self.device.partition(":")[0]


@dataclass(frozen=True)
class Refusal:
    """Why a worker can't work: an error of ours, in parts that travel."""

    kind: type[AscsegError]
    message: str
    hint: str


@dataclass
class Done:
    """What came of a shard.

    results   one for each image, up to where it had to end
    records   for the journal, in order
    redone    why images that had been done are done again, counted
    features  of those of the run's first images that are in it
    said      what the user should know of
    full, bug as in Work
    """

    results: list[Result] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    redone: Counter[str] = field(default_factory=Counter)
    features: list[tuple[int, appearance.Features]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    full: OutputError | None = None
    bug: str = ""


class Worker:
    """What Ray starts; any other way of starting processes would do."""

    _job: Job

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._said: list[str] = []

    def introduce(self, job: Job) -> Introduction | Refusal:
        """Load the model; to be called first, and again when the process was started anew."""
        self._job = job
        self._outputs = destination(job.place)
        self._decoders = self._held.enter_context(Decoders(warn=self._said.append))
        try:
            engine = self._engine
        except AscsegError as error:
            return Refusal(type(error), error.message, error.hint)
        return Introduction(
            engine.metadata, engine.weights_sha256, engine.backend, engine.backend_note, engine.device,
            __version__, socket.gethostname(), os.getpid(),
        )  # fmt: skip

    def segment(self, shard: Shard) -> Done:
        """Do the images of a shard."""
        job, done = self._job, Done()
        if isinstance(job.place, Path) and not (job.place / JOURNAL).exists():
            done.full = OutputError(
                f"{job.place} isn't the same folder on {socket.gethostname()}",
                "give an --output that all machines of the cluster share, or one of the form s3://BUCKET/FOLDER",
            )
            return done
        records = _Told(shard.records)
        earlier = _Standing(records, self._outputs, job, self._engine, shard) if job.resume else None

        def watch(place: int, pixels: np.ndarray) -> None:
            if (number := shard.numbers[place]) < SAMPLE:
                done.features.append((number, appearance.describe(pixels)))

        settings = job.settings
        work = Work(self._engine, settings, self._outputs, records, self._decoders, earlier=earlier, watch=watch)
        pipeline = Pipeline(
            self._engine,
            work,
            tta=settings.tta,
            batch=settings.batch_size,
            threads=job.threads,
            warn=self._said.append,
        )
        done.results = list(pipeline.run(shard.items))
        done.said, self._said[:] = self._said.copy(), []
        done.records, done.full = records.told, work.full
        done.redone = earlier.redone if earlier else Counter()
        done.bug = f"{type(work.bug).__name__}: {work.bug}" if work.bug else ""
        return done

    @cached_property
    def _engine(self) -> Engine:
        cv2.setNumThreads(1)  # OpenCV's own threads would compete with ours and with the network's
        with tempfile.TemporaryDirectory(prefix="ascseg-") as folder:
            file = Path(folder) / self._job.weights_name
            file.write_bytes(self._job.weights)
            job = self._job
            return open_engine(
                file, device=job.device, backend=job.backend, threads=job.threads, precision=job.settings.precision
            )


class _Told:
    """A journal for one shard: knows what the leader sent along, and keeps what is to be told."""

    def __init__(self, known: dict[str, dict[str, Any]]) -> None:
        self._known = known
        self.told: list[dict[str, Any]] = []

    def get(self, image: str) -> dict[str, Any] | None:
        record = self._known.get(image)
        return dict(record) if record is not None else None

    def add(self, record: dict[str, Any]) -> None:
        self.told.append(record)


class _Standing(Earlier):
    """`Earlier` of one shard: does nothing over before the leader has taken back the record of what was done."""

    def __init__(self, records: _Told, outputs: Any, job: Job, engine: Engine, shard: Shard) -> None:
        fingerprint = job.settings.fingerprint(engine.weights_sha256, engine.backend)
        super().__init__(records, outputs, job.settings.save, fingerprint)
        self._records, self._redo = records, shard.redo

    def result(self, item: Item, input_sha256: str) -> Result | None:
        if self._redo:
            return None
        stands = super().result(item, input_sha256)
        if stands is None and self._records.get(item.name) is not None:
            return Result(item.name, STALE)
        return stands
