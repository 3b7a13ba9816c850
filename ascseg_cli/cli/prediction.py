"""What `ascseg predict` does once its options are read: looks everything up, runs, and says what came of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ascseg_cli import exit_codes
from ascseg_cli.cli import printable, say
from ascseg_cli.cli.interrupt import graceful
from ascseg_cli.cli.progress import RunProgress, Search, duration
from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Found, default_output, discover
from ascseg_cli.data.remote import Place, place_of
from ascseg_cli.errors import DataError, OutputError, UsageError
from ascseg_cli.inference import claim
from ascseg_cli.inference.destination import destination
from ascseg_cli.inference.engine import NO_TORCH, Described, Engine, open_engine
from ascseg_cli.inference.outputs import JOURNAL, json_bytes, place_inside
from ascseg_cli.inference.performer import Performer
from ascseg_cli.inference.pipeline import MOST_WORKERS
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.run import Run, Summary
from ascseg_cli.inference.settings import Settings
from ascseg_cli.inference.threads import usable_threads

if TYPE_CHECKING:
    from ascseg_cli.reporting.review import Findings


@dataclass(frozen=True)
class Order:
    """Everything the user asked for, checked as far as it can be without looking at files.

    mode       one of claim.MODES
    ray        the address of a Ray cluster; None: this machine alone
    arguments  the command line as it was typed, without the program's name
    """

    inputs: list[str]
    weights: Path
    settings: Settings
    output: str | None = None
    files_from: str | None = None
    null: bool = False
    report: Path | None = None
    mode: str = "new"
    device: str = "auto"
    backend: str = "auto"
    threads: int | None = None
    ray: str | None = None
    as_json: bool = False
    quiet: bool = False
    arguments: list[str] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """Where outputs go. Raises UsageError where nothing says so."""
        if self.output is None and self.files_from is not None:
            raise UsageError("--files-from needs --output DIR")
        if self.output == "":
            raise UsageError("--output is empty", "name a folder; . is the current one")
        return place_of(self.output) if self.output is not None else default_output(self.inputs[0])

    @property
    def thread_count(self) -> int:
        """Threads to use: what the user said, else what the process may use."""
        return self.threads or usable_threads()


def carry_out(order: Order) -> int:
    """Segment everything that was asked for; returns the exit code."""
    claim.check(destination(order.place), order.mode)
    found = look_up(order)
    check_report(order, found)
    if order.ray is not None:
        from ascseg_cli.cli.on_cluster import segment_on_cluster

        return segment_on_cluster(found, order)
    with Decoders(warn=_warn) as decoders:
        decoders.start(min(order.thread_count, MOST_WORKERS, len(found.items)))
        return segment(found, open_named_engine(order), order, decoders)


def plan(order: Order) -> int:
    """Say what `carry_out` would do, and write nothing: one line an image on stdout."""
    outputs = destination(order.place)
    claim.check(outputs, order.mode)
    found = look_up(order)
    check_report(order, found)
    for item in found.items:
        paths = {kind: outputs.path(kind, item.output_stem) for kind in order.settings.save}
        if order.as_json:  # as in the results: relative to the output folder
            inside = {kind: place_inside(kind, item.output_stem) for kind in paths}
            write_out(json_bytes({"image": item.name, "outputs": inside}) + b"\n")
        else:
            targets = ", ".join(_shown(order.place, path) for path in paths.values())
            write_out(f"{printable(f'{item.path} -> {targets}')}\n".encode())
    say_missing(found)
    say(
        "dry run", f"{_images(len(found.items))} would be segmented with {order.weights.name}; nothing was written"
    )
    return exit_codes.SOME_FAILED if found.missing else exit_codes.OK


def check_report(order: Order, found: Found) -> None:
    """Raises UsageError or OutputError where --report could not be written at the end."""
    if order.report is None:
        return
    if "masks" not in order.settings.save:
        raise UsageError("--report shows the masks, so --save must name masks too")
    place = order.place
    if order.ray is not None or not isinstance(place, Path):
        raise UsageError("--report is drawn from masks in a folder of this machine", "leave --report out")
    if not all(isinstance(item.where, str) for item in found.items):
        raise UsageError("--report is drawn from images in files of this machine", "leave --report out")
    folder = order.report.absolute().parent
    if order.report.is_dir() or not (folder.is_dir() or folder.is_relative_to(place.absolute())):
        raise OutputError(f"--report {order.report} can't be written: no such folder, or itself one")
    for path in _images_and_results(place, found, order.settings.save):
        if path.name == order.report.name and path.resolve() == order.report.resolve():
            raise UsageError(f"--report {order.report} would replace an image or a result", "give another name")


def _images_and_results(folder: Path, found: Found, kinds: Sequence[str]) -> Iterator[Path]:
    """The files of this machine that a run reads and writes."""
    yield from (folder / name for name in (claim.RESULTS, claim.RUN, JOURNAL))
    for item in found.items:
        if isinstance(path := item.path, Path):
            yield path
        yield from (folder / place_inside(kind, item.output_stem) for kind in kinds)


def look_up(order: Order) -> Found:
    """The images that the inputs name. Raises DataError where there is none, UsageError where two collide."""
    listed = read_list(order.files_from, null=order.null) if order.files_from is not None else []
    found = discover(order.inputs, output=order.place, listed=listed, watch=Search(quiet=order.quiet))
    if not order.quiet:
        _say_left_out(found)
    if not found.items:
        say_missing(found)
        raise DataError("no image was found", "name image files, or folders that hold some")
    return found


def read_list(source: str, *, null: bool) -> list[str]:
    """The names in a list: one a line, or ended by NUL bytes; "-" is stdin. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"--files-from {source} can't be read: {error.strerror or error}") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    names = content.split(b"\0") if null else [line.removesuffix(b"\r") for line in content.split(b"\n")]
    if not null and b"\0" in content:
        raise UsageError(f"--files-from {source} holds NUL bytes", "add -0 for lists made with find -print0")
    return [os.fsdecode(name) for name in names if name]


def open_named_engine(order: Order) -> Engine:
    """The weights on their device; says once which backend runs."""
    engine = open_engine(
        order.weights,
        device=order.device,
        backend=order.backend,
        threads=order.thread_count,
        precision=order.settings.precision,
    )
    say_engine(engine, quiet=order.quiet)
    if not order.quiet:
        if engine.first_wait:
            say("note", f"the kernels are being compiled for this machine, once: about {engine.first_wait}")
        say_alone(engine, order.settings.batch_size)
    return engine


def say_engine(engine: Described, *, quiet: bool, more: str = "") -> None:
    """Say what runs, and why where something slower than usual has to; more: said beside it."""
    why = engine.backend_note
    if not quiet:
        reason = f", since {why}" if why == NO_TORCH else ""
        say("note", f"{engine.metadata.name} on {engine.device}, backend {engine.backend}{more}{reason}")
    if why not in ("", NO_TORCH):
        say("warning", f"the slow backend {engine.backend} runs: {why}")


def say_alone(engine: Engine, batch_size: int | None) -> None:
    """Say so where the engine takes one image a pass though more were asked for."""
    if engine.takes_pixels and batch_size is not None and batch_size > 1:
        say("note", f"an exported file runs image by image; --batch-size {batch_size} isn't used")


def segment(found: Found, engine: Engine | Performer, order: Order, decoders: Decoders | None = None) -> int:
    """Run the engine, or those who have theirs elsewhere, over what was found; returns the exit code."""
    outputs = destination(order.place)
    total = len(found.items) + len(found.missing)
    noted = _findings(order)
    unheard: list[OutputError] = []  # the failure of stdout, which ends the run in good order
    with RunProgress(total, quiet=order.quiet) as progress:

        def tell(result: Result) -> None:
            if result.status != "skipped":
                progress.advance(failed=result.status == "failed", worked=not result.resumed)
            if result.status == "failed":
                say("failed", f"{result.image}: {result.reason}")
            if noted is not None:
                noted.add(result.figures())
            if order.as_json and not unheard:
                try:
                    heard = write_out(json_bytes(result.to_json()) + b"\n")
                except OutputError as error:
                    unheard.append(error)
                    heard = False
                if not heard:
                    run.stop()

        run = Run(
            found, engine, order.settings, outputs,
            mode=order.mode, threads=order.thread_count, arguments=order.arguments,
            on_result=tell, warn=_warn, decoders=decoders,
        )  # fmt: skip

        def end_well() -> None:
            run.stop()
            progress.stopping()

        def end_at_once() -> None:
            outputs.remove_temporary()
            progress.close()

        with graceful(end_well, end_at_once):
            summary = run()
    say_summary(summary, order, progress.seconds)
    if unheard:
        raise unheard[0]
    if noted is not None and summary.state == "finished":
        from ascseg_cli.cli import prediction_report

        described = engine.described if isinstance(engine, Performer) else engine
        prediction_report.write(order, found, outputs, described, noted)
    return exit_code(summary)


def _warn(text: str) -> None:
    say("warning", text)


def _findings(order: Order) -> Findings | None:
    """What the report will tell of each image; None where no report is wanted."""
    if order.report is None:
        return None
    from ascseg_cli.reporting.review import Findings

    return Findings()


def exit_code(summary: Summary) -> int:
    """The code for what a run came to."""
    good = summary.counts["ok"] + summary.counts["empty"]
    if summary.interrupted:
        return exit_codes.INTERRUPTED
    if not summary.counts["failed"] and not summary.full:
        return exit_codes.OK
    return exit_codes.SOME_FAILED if good else exit_codes.NOTHING_DONE


def say_summary(summary: Summary, order: Order, seconds: float) -> None:
    """The last lines of a run on stderr."""
    again = shlex.join(["ascseg", *from_scratch(order.arguments), "--resume"])
    if summary.full:
        say("error", summary.full.message)
        say("hint", f"{summary.full.hint or 'mend that'}; then: {again}")
    elif summary.interrupted:
        say("interrupted", f"{_images(summary.counts['skipped'])} not reached; to go on: {again}")
    if order.quiet:
        return
    for why, count in summary.redone.items():
        say("note", f"{_images(count)} done again: {why}")
    words = [
        f"{summary.counts[status]:,} {status}" for status in ("ok", "empty", "failed") if summary.counts[status]
    ]
    kept = f" ({summary.resumed:,} from an earlier run)" if summary.resumed else ""
    came_to = sum(summary.counts.values()) - summary.counts["skipped"]
    say("done", f"{_images(came_to)} in {duration(seconds)}: {', '.join(words) or 'none'}{kept} -> {order.place}")


def say_missing(found: Found) -> None:
    """Each argument that gave nothing, on a line of its own."""
    for missing in found.missing:
        say("failed", f"{missing.name}: {'; '.join(filter(None, (missing.reason, missing.hint)))}")


def write_out(content: bytes) -> bool:
    """Data to stdout at once; False where nobody reads it. Raises OutputError where it can't be stored."""
    if sys.stdout is None:  # closed by the caller
        return False
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return True
    except BrokenPipeError:
        _drop_what_is_buffered()
        return False
    except OSError as error:
        _drop_what_is_buffered()
        raise OutputError(f"stdout can't be written: {error.strerror or error}") from error


def _drop_what_is_buffered() -> None:
    # It could never be written; without this, Python complains about it when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_left_out(found: Found) -> None:
    if found.ignored:
        kinds = ", ".join(f"{suffix or 'no suffix'} {count:,}" for suffix, count in found.ignored.most_common(5))
        say("note", f"left out, not of a kind that is read: {sum(found.ignored.values()):,} ({kinds})")
    if found.hidden:
        say("note", f"left out, hidden: {found.hidden:,}")
    for folder in found.earlier_outputs:
        say("note", f"left out, results of an earlier run: {folder}")


def from_scratch(arguments: list[str]) -> list[str]:
    """The same command for an empty output folder."""
    return [argument for argument in arguments if argument not in ("--overwrite", "--resume")]


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _shown(place: Place, path: Path) -> str:
    """An output's place as the user knows it; remote ones are relative to theirs."""
    return str(path if isinstance(place, Path) else place / path.as_posix())
