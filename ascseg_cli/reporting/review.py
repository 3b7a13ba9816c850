"""The report of `ascseg predict`: what was found in each image, the least certain first, to be looked through."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ascseg_cli.printable import printable
from ascseg_cli.reporting import markup, page, plots
from ascseg_cli.reporting.album import Album, Drawing
from ascseg_cli.reporting.origin import Origin
from ascseg_cli.reporting.page import Column, Images
from ascseg_cli.reporting.plots import Axis
from ascseg_cli.reporting.words import counted, short

_FIRST = 12  # shown large
_LISTED = 50
_CAUTION = (
    "Confidence is the mean probability over the mask: the network's own opinion, not a measured one. A mask can "
    "be wrong with high confidence, and an empty mask has none: look at those too."
)
_KEPT = {
    "confidence": "mean_confidence", "area": "foreground_fraction", "components": "components",
    "pixels": "foreground_pixels", "width": "image_width", "height": "image_height",
}  # fmt: skip
_COLUMNS = (
    Column("name", "name", "the image's relative path", "text"),
    Column("status", "status", "ok: something was found; empty: nothing was", "choice"),
    Column("confidence", "confidence", "mean probability over the mask", "number", True),
    Column("area", "area (%)", "foreground, of the image", "number", None, 2),
    Column("components", "components", "8-connected pieces of the mask", "number", None, 0),
    Column("pixels", "pixels", "of the mask", "number", None, 0, True),
    Column("width", "width", "of the image in pixels", "number", None, 0, True),
    Column("height", "height", "of the image in pixels", "number", None, 0, True),
)


class Findings:
    """What a run found, image by image, in the order of its inputs; about a hundred bytes each.

    names   of the images with a mask, empty ones too
    failed  the others, each with its reason
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failed: list[str] = []
        self._numbers = array("d")

    def add(self, figures: Mapping[str, Any]) -> None:
        """The next image: a row of results.csv by its columns."""
        name = figures["image"]
        if figures["status"] not in ("ok", "empty"):
            self.failed.append(f"{name}: {figures['reason']}")
            return
        self.names.append(name)
        self._numbers.extend(math.nan if figures[key] is None else figures[key] for key in _KEPT.values())

    def column(self, key: str) -> np.ndarray:
        """(n,) float64 of a column of the page, NaN where there is nothing to say."""
        return np.array(self._numbers, np.float64).reshape(-1, len(_KEPT))[:, list(_KEPT).index(key)]


def write(path: Path, weights: str, found: Findings, album: Album, origin: Origin) -> None:
    """Write the report of one run. Raises OutputError."""
    confidence = found.column("confidence")
    order = np.argsort(confidence, kind="stable")  # NaN, of empty masks, comes last
    title = f"Review of masks by {weights}"
    images = Images(_COLUMNS, _rows(found, order, album), ("confidence", False), "confidence")
    page.write(path, title, _body(title, found, order, album, origin), images)


def _body(title: str, found: Findings, order: np.ndarray, album: Album, origin: Origin) -> Iterator[str]:
    confidence = found.column("confidence")
    yield origin.header(title, f"{counted(len(order), 'image')}, the least confident first.")
    yield "<main>\n"
    if found.failed:
        more = [f"and {len(found.failed) - _LISTED:,} more"] * (len(found.failed) > _LISTED)
        yield markup.warning(f"Failed: {counted(len(found.failed), 'image')}", [*found.failed[:_LISTED], *more])
    yield markup.section("summary", "Summary", _tiles(found), markup.paragraph(_CAUTION))
    yield markup.section("spread", "How the figures spread", markup.grid(_charts(found), "charts"))
    first = [int(place) for place in order[:_FIRST] if not np.isnan(confidence[place])]
    cases = (
        markup.case(name, f"confidence {confidence[place]:.3f}", album.large(name))
        for place, name in ((place, found.names[place]) for place in first)
    )
    legend = markup.legend(truth=False, masks_alone=False)
    yield markup.section("cases", "Least confident", legend, markup.grid(cases, "cases")) if first else ""
    yield page.images_section("All images", "Empty masks have no confidence and come last.", legend)
    yield origin.section()
    yield "</main>\n"


def _tiles(found: Findings) -> str:
    confidence = found.column("confidence")
    known = confidence[~np.isnan(confidence)]
    entries = [
        ("with a mask", f"{len(known):,}", "images"),
        ("empty", f"{len(confidence) - len(known):,}", "images: nothing was found"),
        ("failed", f"{len(found.failed):,}", "images"),
    ]
    if len(known):
        tenth = f"a tenth of them below {np.quantile(known, 0.1):.3f}"
        entries.append(("median confidence", f"{np.median(known):.3f}", tenth))
    return markup.tiles(entries)


def _charts(found: Findings) -> Iterator[str]:
    confidence = found.column("confidence")
    some = ~np.isnan(confidence)
    known, area = confidence[some], found.column("area")[some] * 100
    if not some.any():
        return
    low = min(0.9, math.floor(10 * known.min()) / 10)
    across = Axis("area of the mask, % of the image", area.min() / 1.15, min(100, area.max() * 1.15), True)
    upright = Axis("confidence", low, 1)
    yield markup.chart(
        plots.histogram(known, upright, float(known.mean())), "Confidence:", "of masks with foreground"
    )
    spread = plots.histogram(area, Axis("area, % of the image", 0, float(area.max())), float(area.mean()))
    yield markup.chart(spread, "Area:", "of masks with foreground")
    words = "each dot an image" + "; the line joins the medians of five equal groups by size" * (
        len(known) >= plots.ENOUGH
    )
    yield markup.chart(plots.scatter(area, known, across, upright), "Size against confidence:", words)


def _rows(found: Findings, order: np.ndarray, album: Album) -> Iterator[tuple[list[Any], Drawing | None]]:
    numbers = {key: found.column(key) for key in _KEPT}
    numbers["area"] = numbers["area"] * 100
    for place in order:
        name, pixels = found.names[place], numbers["pixels"][place]
        words = {"name": printable(name), "status": "ok" if pixels else "empty"}
        values = [words[c.key] if c.key in words else short(numbers[c.key][place]) for c in _COLUMNS]
        yield values, album.get(name) if album.budget.any else None
