"""One run over many images: claims the folder, drives the pipeline, keeps results.csv and run.json true."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2

from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Found, Missing
from ascseg_cli.errors import OutputError, StoreError
from ascseg_cli.inference import claim, run_record
from ascseg_cli.inference.destination import Destination, KeptRecords
from ascseg_cli.inference.engine import Described, Engine
from ascseg_cli.inference.likeness import Likeness
from ascseg_cli.inference.outputs import FolderError, place_inside
from ascseg_cli.inference.performer import NOT_WRITTEN, Performer
from ascseg_cli.inference.pipeline import Pipeline
from ascseg_cli.inference.results import STATUSES, Result, Table
from ascseg_cli.inference.resume import Earlier
from ascseg_cli.inference.run_record import RunRecord
from ascseg_cli.inference.settings import Settings
from ascseg_cli.inference.work import Work


@dataclass
class Summary:
    """What a run came to.

    counts       results by status
    resumed      of them, kept from an earlier run
    redone       why images that had been done were done again, counted
    interrupted  it was asked to stop before it had come to every image
    full         it stopped by itself, since nothing more could be written
    """

    counts: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    redone: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False
    full: OutputError | None = None

    def add(self, result: Result) -> None:
        """Count one more."""
        self.counts[result.status] += 1
        self.resumed += result.resumed

    @property
    def state(self) -> str:
        """The state that run.json tells."""
        return "failed" if self.full else "interrupted" if self.interrupted else "finished"


class Run:
    """A run that is ready to go.

    on_result  called with each result, in the order of the inputs
    warn       called with each line that the user should know of
    decoders   that were started while the engine was loaded; None: the run starts its own
    """

    def __init__(
        self,
        found: Found,
        engine: Engine | Performer,
        settings: Settings,
        outputs: Destination,
        *,
        mode: str,
        threads: int,
        arguments: Sequence[str],
        on_result: Callable[[Result], None],
        warn: Callable[[str], None],
        decoders: Decoders | None = None,
    ) -> None:
        self._decoders = decoders
        self._found, self._engine, self._settings, self._outputs = found, engine, settings, outputs
        self._mode, self._threads, self._on_result, self._warn = mode, threads, on_result, warn
        self._described: Described = engine.described if isinstance(engine, Performer) else engine
        self._record = RunRecord(outputs, self._described, settings, arguments=arguments, threads=threads)
        self._likeness = Likeness(self._described.metadata, len(found.items))
        self._pipeline: Pipeline | Performer | None = None
        self._summary = Summary()

    def stop(self) -> None:
        """End the run after the images in flight; may be called from a signal handler."""
        self._summary.interrupted = True
        if self._pipeline:
            self._pipeline.stop()

    def __call__(self) -> Summary:
        """Do it. Raises UsageError or OutputError before the first image; later trouble is in the rows."""
        claim.check(self._outputs, self._mode)
        journal = self._outputs.journal(self._warn)
        journal.open()
        if not journal.locked:
            self._warn(f"{self._outputs} lies where files can't be locked; let no other run write into it")
        try:
            earlier = self._begin(journal)
            # OpenCV's own threads would compete with ours and with the network's.
            threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
            try:
                with contextlib.ExitStack() as own:
                    decoders = self._decoders or own.enter_context(Decoders(warn=self._warn))
                    self._segment(journal, earlier, decoders)
            finally:
                cv2.setNumThreads(threads_before)
        finally:
            journal.close()
        return self._summary

    def _begin(self, journal: KeptRecords) -> Earlier | None:
        """Make the folder ready and write run.json; what stands of earlier runs, under --resume."""
        self._outputs.remove_leftovers()
        if self._mode == "overwrite":
            claim.clear(self._outputs, journal.records())
            journal.forget()
        before = run_record.read(self._outputs) if self._mode == "resume" else None
        earlier = self._earlier(journal, before) if self._mode == "resume" else None
        self._record.begin(before)
        return earlier

    def _earlier(self, journal: KeptRecords, before: dict[str, Any] | None) -> Earlier:
        changes = self._record.changes_since(before) if before else []
        if changes and len(journal):
            self._warn(f"the earlier run was made otherwise ({', '.join(changes)}); its images are done again")
        self._say_who_left(journal)
        fingerprint = self._settings.fingerprint(self._described.weights_sha256, self._described.backend)
        return Earlier(journal, self._outputs, self._settings.save, fingerprint)

    def _say_who_left(self, journal: KeptRecords) -> None:
        """Outputs without a row in the new results.csv are nobody's to remove, but to be known of.

        The record of an image whose output is another's from now on is taken back: what lies there isn't its own.
        """
        items, kinds = self._found.items, self._settings.save
        owners: dict[str, str] = {}
        for name in set(journal) - {item.name for item in items}:
            outputs = (journal.get(name) or {}).get("outputs")
            named = outputs.values() if isinstance(outputs, dict) else ()
            owners |= {where: name for where in named if isinstance(where, str)}
        if not owners:
            return
        written = (place_inside(kind, item.output_stem) for item in items for kind in kinds)
        replaced = {owners[where] for where in written if where in owners}
        for name in sorted(replaced):
            journal.add({"image": name})
        self._say_left(set(owners.values()) - replaced, "outputs stay")
        self._say_left(replaced, "outputs are overwritten by those of others")

    def _say_left(self, names: set[str], what: str) -> None:
        if names:
            count = "1 image" if len(names) == 1 else f"{len(names):,} images"
            self._warn(f"{count} of the earlier run aren't among the inputs now; {what} (first: {min(names)})")

    def _segment(self, journal: KeptRecords, earlier: Earlier | None, decoders: Decoders) -> None:
        summary = self._summary
        work, self._pipeline = self._performers(journal, earlier, decoders)
        if summary.interrupted:
            self._pipeline.stop()
        try:
            # Closed at once, whatever happens, so that no thread of the pipeline outlives its decoders.
            with contextlib.closing(self._results(self._pipeline, work)) as results:
                self._tell(results)
        except (FolderError, StoreError) as error:  # the table itself didn't fit; the journal has what it told
            work.full = work.full or error
        self._say(self._likeness.warning(last=True))
        if isinstance(self._engine, Performer) and self._engine.lost_some:
            self._outputs.remove_leftovers()
        summary.full = work.full
        summary.interrupted = summary.interrupted and summary.counts["skipped"] > 0
        summary.redone = earlier.redone if earlier else Counter()
        counts = {status: summary.counts[status] for status in STATUSES}
        try:
            self._record.end(summary.state, {**counts, "resumed": summary.resumed})
        except (FolderError, StoreError) as error:
            summary.full = summary.full or error
        if work.bug:
            raise work.bug

    def _performers(
        self, journal: KeptRecords, earlier: Earlier | None, decoders: Decoders
    ) -> tuple[Work | Performer, Pipeline | Performer]:
        """Who does the work on each image, and who drives it."""
        settings, watch = self._settings, self._likeness.see
        if isinstance(self._engine, Performer):
            self._engine.begin(journal, earlier, self._likeness.take)
            return self._engine, self._engine
        work = Work(self._engine, settings, self._outputs, journal, decoders, earlier=earlier, watch=watch)
        pipeline = Pipeline(
            self._engine,
            work,
            tta=settings.tta,
            batch=settings.batch_size,
            threads=self._threads,
            warn=self._warn,
        )
        return work, pipeline

    def _tell(self, results: Iterator[Result]) -> None:
        with self._outputs.open(self._outputs.root / claim.RESULTS) as file:
            table = Table(file)
            for result in results:
                table.add(result)
                self._summary.add(result)
                self._on_result(result)
                self._say(self._likeness.warning())

    def _results(self, pipeline: Pipeline | Performer, work: Work | Performer) -> Generator[Result, None, None]:
        """One result for each input, in order: what wasn't found, was done, or wasn't come to."""
        missing = deque(sorted(self._found.missing, key=lambda lack: lack.before))
        for done, result in enumerate(self._done_and_skipped(pipeline, work)):
            while missing and missing[0].before <= done:
                yield _not_found(missing.popleft())
            yield result
        yield from map(_not_found, missing)

    def _done_and_skipped(self, pipeline: Pipeline | Performer, work: Work | Performer) -> Iterator[Result]:
        done = 0
        for result in pipeline.run(self._found.items):
            done += 1
            yield result
        why = NOT_WRITTEN if work.full else "not reached: the run was interrupted"
        for item in self._found.items[done:]:
            yield Result(item.name, "skipped", why)

    def _say(self, text: str | None) -> None:
        if text:
            self._warn(text)


def _not_found(missing: Missing) -> Result:
    return Result(missing.name, "failed", "; ".join(filter(None, (missing.reason, missing.hint))))
