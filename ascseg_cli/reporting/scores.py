"""The report of `ascseg evaluate`: figures with their intervals, how they spread, and the images behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.evaluation.metrics import METRICS, Counts, case_of
from ascseg_cli.printable import printable
from ascseg_cli.reporting import markup, page, score_charts, score_tables
from ascseg_cli.reporting.album import Album, Drawing
from ascseg_cli.reporting.origin import Origin
from ascseg_cli.reporting.page import Column, Images
from ascseg_cli.reporting.words import CASES, COUNTS, METRIC, counted, figure, interval, short

_DETAIL = ("specificity", "accuracy", "polyp255_dice", "polyp255_iou", "ece", "brier")  # not in the table
_WORST, _OTHERS = 8, 4  # cases shown large
_LISTED = 50


def write(path: Path, title: str, whole: Evaluation, album: Album, origin: Origin) -> None:
    """Write the report of one evaluation. Raises OutputError."""
    order = _worst_first(whole)
    names = whole.table.names
    columns = _columns(whole)
    images = Images(columns, _rows(whole, columns, order, album), ("dice", False), "dice")
    page.write(path, title, _body(title, whole, [names[i] for i in order], album, origin), images)


def _worst_first(whole: Evaluation) -> np.ndarray:
    """Places of the images by Dice, then HD95, then name."""
    by_name = np.argsort(np.argsort(np.array(list(whole.table.names), dtype=object), kind="stable"))
    far = whole.table.filled("hd95", whole.ruler.scale)
    return np.lexsort((by_name, -far, whole.table.column("dice")))


def _body(title: str, whole: Evaluation, names: list[str], album: Album, origin: Origin) -> Iterator[str]:
    groups = "" if whole.groups is None else f" in {int(whole.groups.max()) + 1:,} groups"
    yield origin.header(title, f"{counted(len(names), 'image')} scored{groups}.")
    yield "<main>\n"
    yield from _warnings(whole)
    yield markup.section("summary", "Summary", _tiles(whole), score_tables.summary(whole), *_remarks(whole))
    yield markup.section("protocols", "Protocols side by side", score_tables.protocols(whole.summary))
    if whole.unseen is not None:
        body = score_tables.unseen(whole.summary, whole.unseen, whole.ruler)
        yield markup.section("seen", "With and without images seen in training", body)
    yield markup.section("comparison", "Against the other set", score_tables.comparison(whole))
    yield markup.section("spread", "How the figures spread", markup.grid(score_charts.charts(whole), "charts"))
    yield _cases(whole, names, album)
    yield page.images_section("All images", f"{COUNTS} Distances are in {whole.ruler.unit}.", _legend(album))
    yield origin.section()
    yield "</main>\n"


def _warnings(whole: Evaluation) -> Iterator[str]:
    seen = whole.seen
    if seen is not None and seen.exact + seen.near:
        lines = [
            f"{seen.exact:,} exactly, {seen.near:,} nearly (rescaled, recompressed, turned, cropped …), "
            f"of {seen.checked:,} images looked at.",
            "A score on those says nothing about new images: read the figures without them."
            if whole.unseen
            else "No image is left that was not seen: these figures say nothing about new images.",
        ]
        yield markup.warning(f"{counted(seen.exact + seen.near, 'image')} seen in training", lines)
    failed = [f"{one.name}: {one.reason}" for one in whole.table.unscored]
    if failed:
        yield markup.warning(f"Failed, and in no figure: {counted(len(failed), 'image')}", _some(failed))
    lone = [f"{name} ({side.removesuffix('s')})" for side, names in whole.unpaired.items() for name in names]
    if lone:
        yield markup.warning(f"Without a partner, and in no figure: {counted(len(lone), 'file')}", _some(lone))


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _LISTED
    return lines[:_LISTED] + [f"and {more:,} more"] * (more > 0)


def _tiles(whole: Evaluation) -> str:
    shown = []
    for name in ("dice", "iou", "hd95", "nsd"):
        one = whole.summary.metrics[name]
        bounds = interval(one.low, one.high)
        label = score_tables.label(name, whole.ruler)
        shown.append(
            (f"mean {label}", figure(one.mean), f"{whole.plan.level:.0%}: {bounds}" if bounds != "–" else "")
        )
    cases = whole.summary.cases
    shown.append(("missed", f"{cases['missed']:,}", "images: " + CASES["missed"]))
    shown.append(("false alarms", f"{cases['false_alarm']:,}", "images: " + CASES["false_alarm"]))
    return markup.tiles(shown)


def _remarks(whole: Evaluation) -> Iterator[str]:
    cases = whole.summary.cases
    if cases["found"] < len(whole.table):
        yield markup.paragraph(
            f"Empty masks: {cases['missed']:,} missed ({CASES['missed']}), {cases['false_alarm']:,} false alarms "
            f"({CASES['false_alarm']}), {cases['both_empty']:,} both empty ({CASES['both_empty']}). Where exactly "
            "one mask is empty, overlaps are 0, and a distance is undefined: the image's diagonal counts in its "
            "mean, as “filled” says, so that a miss never improves it. Both empty: overlaps 1, distances 0."
        )
    if whole.table.grey:
        yield markup.paragraph(
            f"{whole.table.grey:,} mask files hold values besides 0 and 255, as JPEG leaves them; above 127 is "
            "foreground."
        )


def _cases(whole: Evaluation, names: list[str], album: Album) -> str:
    """The worst, the middle and the best images, none of them twice."""
    values = {name: place for place, name in enumerate(whole.table.names)}
    dice, hd95, cases = whole.table.column("dice"), whole.table.column("hd95"), whole.table.column("tp")
    found = [name for name in names if cases[values[name]] > 0]
    worst = names[:_WORST]
    best = [name for name in reversed(found) if name not in worst][:_OTHERS]
    middle = (len(names) - _OTHERS) // 2
    median = [name for name in names[max(0, middle) : middle + _OTHERS] if name not in (*worst, *best)]

    def shown(name: str) -> str:
        far = hd95[values[name]]
        distance = "undefined" if np.isnan(far) else f"{far:.1f} {whole.ruler.unit}"
        return markup.case(name, f"Dice {dice[values[name]]:.3f}, HD95 {distance}", album.large(name))

    parts = [_legend(album)]
    for title, some in (("Worst", worst), ("Around the median", median), ("Best", best)):
        if some:
            parts += [f"<h3>{title} by Dice</h3>", markup.grid(map(shown, some), "cases")]
    return markup.section("cases", "Worst, median and best cases", *parts)


def _legend(album: Album) -> str:
    return markup.legend(truth=True, masks_alone=album.alone > 0)


def _columns(whole: Evaluation) -> list[Column]:
    columns = [
        Column("name", "name", "the image's relative path without suffix", "text"),
        Column("case", "case", "; ".join(f"{k}: {v}" for k, v in CASES.items()), "choice"),
    ]
    if whole.seen is not None:
        columns.append(Column("seen", "seen", "in training: exact, near or not", "choice"))
    for name in whole.table.metrics:
        metric, digits = METRICS[name], 2 if METRICS[name].kind == "distance" else 3
        label = score_tables.label(name, whole.ruler)
        columns.append(Column(name, label, METRIC[name], "number", metric.rising, digits, name in _DETAIL))
    if whole.other is not None:
        columns.append(Column("change", "Dice change", "this set less the other", "number", True))
    columns.append(Column("truth_area", "true area (%)", "of the image", "number", None, 2))
    for key in ("height", "width", "tp", "fp", "fn", "tn"):
        columns.append(Column(key, key, "pixels", "number", None, 0, True))
    return columns


def _rows(
    whole: Evaluation, columns: list[Column], order: np.ndarray, album: Album
) -> Iterator[tuple[list[Any], Drawing | None]]:
    table = whole.table
    numbers = {key: table.column(key) for key in (*table.metrics, "height", "width", "tp", "fp", "fn", "tn")}
    numbers["truth_area"] = 100 * score_charts.true_share(table)
    if whole.other is not None:
        numbers["change"] = score_charts.change_of_dice(whole)
    for place in order:
        name = table.names[place]
        counts = Counts(*(int(numbers[key][place]) for key in ("tp", "fp", "fn", "tn")))
        words = {"name": printable(name), "case": case_of(counts), "seen": whole.seen_kinds.get(name) or "no"}
        values = [words[c.key] if c.key in words else short(numbers[c.key][place]) for c in columns]
        yield values, album.get(name) if album.budget.any else None
