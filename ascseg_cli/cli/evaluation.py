"""What `ascseg evaluate` does once its options are read: pairs, scores, sums up, and says what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ascseg_cli import exit_codes
from ascseg_cli.cli import evaluation_table, say
from ascseg_cli.cli.prediction import write_out
from ascseg_cli.cli.progress import RunProgress
from ascseg_cli.data import grouping
from ascseg_cli.data.tree import IMAGE_SUFFIXES, suffix
from ascseg_cli.errors import DataError, GateError, OutputError, UsageError
from ascseg_cli.evaluation import gates, rows_file
from ascseg_cli.evaluation.bootstrap import Plan
from ascseg_cli.evaluation.comparison import compare
from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.evaluation.mask_pairs import MaskPairs
from ascseg_cli.evaluation.metrics import MASK_METRICS, METRICS, Ruler
from ascseg_cli.evaluation.ordered import in_order
from ascseg_cli.evaluation.packed import Texts
from ascseg_cli.evaluation.pairing import pair_again, pair_folders, pair_images
from ascseg_cli.evaluation.scoring import Scored, Unscored, Watch, score_files
from ascseg_cli.evaluation.summary import POOLED, PROTOCOLS, summarise
from ascseg_cli.evaluation.table import Table
from ascseg_cli.inference.threads import usable_threads

if TYPE_CHECKING:
    from ascseg_cli.reporting.album import Album

Groups = tuple[Texts, Texts]  # names of images, and the group of each

_LISTED = 10  # names on a side


@dataclass(frozen=True)
class Order:
    """Everything the user asked for that both ways of scoring share.

    arguments  the command line as it was typed, without the program's name
    """

    ruler: Ruler
    plan: Plan
    protocols: tuple[str, ...]
    require: str | None = None
    require_interval: bool = False
    allow_unpaired: bool = False
    compare: Path | None = None
    group: str | None = None
    csv: Path | None = None
    report: Path | None = None
    as_json: bool = False
    threads: int | None = None
    quiet: bool = False
    arguments: list[str] = field(default_factory=list)

    @property
    def thread_count(self) -> int:
        """Threads to use: what the user said, else what the process may use."""
        return self.threads or usable_threads()

    def gates(self, *, probabilities: bool) -> list[gates.Gate]:
        """What must be met, known to be measured. Raises UsageError."""
        names = list(METRICS) if probabilities else list(MASK_METRICS)
        names += [f"per_image.{name}" for name in names] + [f"pooled.{name}" for name in POOLED] + ["isic.iou"]
        names += ["pooled.ece", "polyp255.dice", "polyp255.iou"] if probabilities else []
        return [] if self.require is None else gates.parse_gates(self.require, names)


def plan_of(method: str, resamples: int, seed: int) -> Plan:
    """How intervals are made. Raises UsageError for an unknown method."""
    if method not in ("bca", "percentile"):
        raise UsageError(f"--interval is {method!r}; it must be bca or percentile")
    return Plan(method=method, resamples=resamples, seed=seed)


def parse_protocols(text: str) -> tuple[str, ...]:
    """The protocols to show. Raises UsageError for a name that doesn't exist."""
    names = tuple(PROTOCOLS) if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PROTOCOLS:
            raise UsageError(f"--protocol names {name!r}; known: {', '.join(PROTOCOLS)}, all")
    return names


def of_masks(order: Order, pred: Path, truth: Path, images: Path | None = None) -> int:
    """Score a folder of masks against another; returns the exit code. images: photographs for the report."""
    limits = order.gates(probabilities=False)
    check_outputs(order)
    pairing = pair_folders(pred, truth)
    if pairing.left_out and not order.quiet:
        say("note", f"left out, images beside their masks: {pairing.left_out:,}")
    unpaired = {"predictions": pairing.lone_pred, "truths": pairing.lone_truth}
    check_unpaired(unpaired, allowed=order.allow_unpaired)
    groups = groups_of(order.group, ((pair.name, pair.pred_files[0]) for pair in pairing.pairs), pred)
    photographs = {} if images is None else pair_images(images, pairing.pairs)
    with album_for(order, len(pairing.pairs)) as album:
        table = score_masks(pairing.pairs, order, watching(album, photographs))
        settings = {"pred": str(pred), "truth": str(truth)}
        whole = sum_up(order, table, pairing.pairs, groups, unpaired=unpaired, settings=settings)
        return tell(whole, order, limits, album)


def album_for(order: Order, count: int) -> contextlib.AbstractContextManager[Album | None]:
    """Where the report's pictures gather; None where no report is wanted."""
    if order.report is None:
        return contextlib.nullcontext()
    from ascseg_cli.reporting.album import Album

    return Album(count)


def watching(album: Album | None, photographs: Mapping[str, Path]) -> Watch | None:
    """What draws each scored image into the album, on its photograph where there is one."""
    if album is None:
        return None
    return lambda name, pred, truth: album.add(name, pred, truth, photographs.get(name))


def score_masks(pairs: MaskPairs, order: Order, watch: Watch | None = None) -> Table:
    """The figures of pairs of mask files, told as they come."""
    outcomes = in_order(lambda pair: score_files(pair, order.ruler, watch=watch), pairs, order.thread_count)
    return collect(Table(), outcomes, len(pairs), order)


def collect(table: Table, outcomes: Iterable[Scored | Unscored], total: int, order: Order) -> Table:
    """Fill the table, and say what failed and what is odd. Raises DataError where nothing could be scored."""
    odd = 0
    with RunProgress(total, quiet=order.quiet) as progress:
        for outcome in outcomes:
            table.add(outcome)
            progress.advance(failed=isinstance(outcome, Unscored))
            if isinstance(outcome, Unscored):
                say("failed", f"{outcome.name}: {outcome.reason}")
            else:
                for remark in outcome.remarks[: max(0, _LISTED - odd)]:
                    say("warning", f"{remark}; read by the rule > 127")
                odd += len(outcome.remarks)
    if odd > _LISTED:
        say("warning", f"and {odd - _LISTED:,} more mask files with such values")
    if not len(table):
        raise DataError(f"none of {total:,} images could be scored")
    if table.grey and not order.quiet:
        say("note", f"{table.grey:,} mask files hold values besides 0 and 255, cut at 127")
    return table


def groups_of(rule: str | None, files: Iterable[tuple[str, str]], root: Path) -> Groups | None:
    """The group of each image; None where each stands alone. files: names and paths of images."""
    if rule is None:
        return None
    names, images = zip(*files)
    return Texts(names), Texts(grouping.groups_of(images, rule, root))


def sum_up(order: Order, table: Table, pairs: MaskPairs, groups: Groups | None, **more: Any) -> Evaluation:
    """Means, intervals, protocols, and the comparison where one is wanted."""
    scale = order.ruler.scale
    numbers = _numbered(table.names, groups)
    summary = summarise(table, order.plan, numbers, scale)
    whole = Evaluation(table, summary, order.ruler, order.plan, numbers, **more)
    if order.compare is None:
        return whole
    if order.compare.is_dir():
        if not order.quiet:
            say("note", f"scoring {order.compare} too")
        other = score_masks(pair_again(order.compare, pairs), replace(order, compare=None))
    else:
        other = rows_file.read_rows(order.compare)
    return replace(whole, comparison=compare(table, other, order.plan, numbers, scale), other=other)


def _numbered(names: Iterable[str], groups: Groups | None) -> np.ndarray | None:
    if groups is None:
        return None
    of_name = dict(zip(*groups))
    return np.unique([of_name[name] for name in names], return_inverse=True)[1]


def check_unpaired(unpaired: dict[str, tuple[str, ...]], *, allowed: bool) -> None:
    """List what has no partner. Raises DataError unless that is allowed."""
    for side, names in unpaired.items():
        for name in names[:_LISTED]:
            say("unpaired", f"{side.removesuffix('s')} {name}")
        if len(names) > _LISTED:
            say("unpaired", f"and {len(names) - _LISTED:,} more {side}")
    words = " and ".join(f"{len(names):,} {side}" for side, names in unpaired.items() if names)
    if words and not allowed:
        raise DataError(f"{words} have no partner", "--allow-unpaired scores the others")


def check_outputs(order: Order, weights: Path | None = None) -> None:
    """Raises OutputError or UsageError, before any work, where --csv or --report can't or must not be written."""
    taken = {"--weights": weights, "--compare": order.compare}
    taken["--group"] = None if order.group is None else grouping.table_of(order.group)
    for option, path in (("--csv", order.csv), ("--report", order.report)):
        for other, used in taken.items():
            if path is not None and used is not None and path.resolve() == used.resolve():
                raise UsageError(
                    f"{option} {path} is the file of {other} too: it would be replaced", "give another"
                )
        taken[option] = path
        if path is not None and suffix(path.name) in IMAGE_SUFFIXES:
            raise UsageError(f"{option} {path} has an image's name", "give another: it would replace the image")
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise OutputError(f"{option} {path} can't be written: no such folder, or itself one")


def tell(whole: Evaluation, order: Order, limits: list[gates.Gate], album: Album | None = None) -> int:
    """Write everything that was asked for; returns the exit code. Raises GateError."""
    if order.csv is not None:
        rows_file.write_rows(order.csv, whole.rows())
    if order.as_json:
        for piece in whole.json_pieces():
            if not write_out(piece.encode("utf-8", "backslashreplace")):
                break
    else:
        write_out(evaluation_table.text(whole, order.protocols).encode("utf-8", "backslashreplace"))
    if album is not None:
        from ascseg_cli.cli import evaluation_report

        evaluation_report.write(whole, order, album)
    missed = gates.failures(limits, whole.summary, whole_interval=order.require_interval)
    if missed:
        raise GateError("not met: " + "; ".join(missed))
    failed = whole.table.unscored or (whole.other is not None and whole.other.unscored)
    return exit_codes.SOME_FAILED if failed else exit_codes.OK
