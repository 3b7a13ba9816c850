"""How `ascseg check` shows its report: a page of facts, then what is wrong, file by file, on 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli.cli import printable, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ascseg_cli.data.cleaning import Cleaned
    from ascseg_cli.data.report import Copies, Report

_MOST_LINES = 12  # of each list; --json has them all


def print_report(report: Report) -> None:
    """The report on stdout: a table of facts, then copies and remarks, each list cut after some lines."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    table = _grid()
    for name, words in _facts(report):
        table.add_row(Text(name, "bold"), Text(printable(words)))
    console.print(table)
    across = [one for one in report.copies if one.across]
    if across:
        console.print(Text("\nCopies in different parts (training leaves its copy out)", "bold yellow"))
        _print_list(console, [("", _copy_words(one)) for one in across])
    for title, style, wanted in (("Problems", "bold red", True), ("To look at", "bold yellow", False)):
        remarks = [remark for remark in report.remarks if remark.problem is wanted]
        if remarks:
            console.print(Text(f"\n{title}", style))
            _print_list(console, [(report.name(remark.path), remark.words) for remark in remarks])


def say_cleaned(cleaned: Cleaned, output: Path, *, quiet: bool) -> None:
    """What the clean copy holds, and what couldn't be mended, on stderr."""
    for remark in cleaned.left_out[:_MOST_LINES]:
        say("left out", f"{remark.path}: {remark.words}")
    if len(cleaned.left_out) > _MOST_LINES:
        say("left out", f"{len(cleaned.left_out) - _MOST_LINES} more")
    if quiet:
        return
    changes = (
        (cleaned.turned, "image written upright", "images written upright"),
        (cleaned.turned_masks, "mask turned with its image", "masks turned with their images"),
        (cleaned.united, "mask united from several", "masks united from several"),
        (cleaned.renamed, "image renamed", "images renamed"),
        (len(cleaned.left_out), "pair left out", "pairs left out"),
        (cleaned.alone, "file without a partner left out", "files without a partner left out"),
    )
    words = ", ".join(_many(count, one, more) for count, one, more in changes if count)
    say("done", f"{_many(len(cleaned.written), 'pair', 'pairs')} -> {output}" + (f"; {words}" if words else ""))
    say("hint", f"to keep the parts: --split-file {output / 'split.csv'}")


def _grid() -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _print_list(console: Console, lines: list[tuple[str, str]]) -> None:
    from rich.text import Text

    for name, words in lines[:_MOST_LINES]:
        console.print(Text(printable(f"  {name}: {words}" if name else f"  {words}")), soft_wrap=True)
    if len(lines) > _MOST_LINES:
        console.print(Text(f"  and {len(lines) - _MOST_LINES:,} more: see --json", "dim"))


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    several = sum(len(one.pair.masks) > 1 for one in report.facts)
    unpaired = len(report.dataset.unpaired)
    yield "layout", report.dataset.layout
    yield (
        "pairs",
        f"{_many(len(report.facts), 'image with its mask', 'images with masks')}"
        + (f", {several:,} of them with several mask files" if several else "")
        + (f"; {_many(unpaired, 'file', 'files')} without a partner" if unpaired else ""),
    )
    yield "usable", f"{len(report.usable):,} of {len(report.facts):,}"
    yield "formats", _counted(report.formats())
    yield "sizes", _sizes(report.sizes())
    yield "masks", _counted(report.kinds())
    yield "foreground", _shares(report)
    counts = ", ".join(f"{count:,} {part}" for part, count in report.split.counts().items())
    yield "split", f"{counts} ({report.split.rule})"
    yield "copies", _copies(report.copies)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common()) or "none"


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    if not sizes:
        return "none"
    (width, height), most = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return f"all {width}×{height} px"
    areas = sorted(sizes, key=lambda size: size[0] * size[1])
    (w0, h0), (w1, h1) = areas[0], areas[-1]
    return f"{w0}×{h0} to {w1}×{h1} px, {len(sizes):,} different; most often {width}×{height} ({most:,})"


def _shares(report: Report) -> str:
    shares, without = report.shares(), report.without_foreground()
    if not len(shares):
        return f"none in {without:,} images"
    low, middle, high = np.percentile(shares, (5, 50, 95))
    words = f"median {middle:.1%} of an image's pixels, 5 to 95 %: {low:.1%} to {high:.1%}"
    return words + (
        f"; {_many(without, 'image has', 'images have')} an empty mask" if without else "; no empty masks"
    )


def _copies(copies: tuple[Copies, ...]) -> str:
    if not copies:
        return "none"
    exact, across = sum(one.exact for one in copies), sum(one.across for one in copies)
    many = _many(len(copies), "pair", "pairs")
    return f"{many}: {exact:,} exact, {len(copies) - exact:,} near; {across:,} in different parts"


def _copy_words(copies: Copies) -> str:
    (one, other), (here, there) = copies.images, copies.parts
    return f"{one.name} ({here}), {other.name} ({there}): {copies.how}"
