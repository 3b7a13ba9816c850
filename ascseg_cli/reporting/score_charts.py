"""How the figures of an evaluation spread over images: histograms, size against score, reliability."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.evaluation.metrics import METRICS
from ascseg_cli.evaluation.table import Table
from ascseg_cli.reporting import markup, plots
from ascseg_cli.reporting.plots import Axis
from ascseg_cli.reporting.score_tables import label

_SPREAD = ("dice", "iou", "hd95", "nsd", "sensitivity", "precision")


def charts(whole: Evaluation) -> Iterator[str]:
    """A histogram of each of the metrics that readers ask for first, then what explains them."""
    yield from _histograms(whole)
    yield _size_against_score(whole.table)
    yield _reliability(whole.table)
    yield _image_by_image(whole)


def _histograms(whole: Evaluation) -> Iterator[str]:
    for name in _SPREAD:
        values = whole.table.column(name)
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        high = 1.0
        tenth = float(np.quantile(values, 0.1 if METRICS[name].rising else 0.9))
        side = "below" if METRICS[name].rising else "above"
        words = f"median {_brief(float(np.median(values)))}, a tenth {side} {_brief(tenth)}"
        if METRICS[name].kind == "distance":
            high = float(max(np.quantile(values, 0.98), 1.0))
            beyond, undefined = int((values > high).sum()), len(whole.table) - len(values)
            words += f"; {beyond:,} beyond the end count in the last bar" * bool(beyond)
            words += f"; {undefined:,} undefined and not shown" * bool(undefined)
        mean = float(values.mean())
        svg = plots.histogram(values, Axis(label(name, whole.ruler), 0, high), mean)
        yield markup.chart(svg, METRICS[name].label + ":", words)


def _brief(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.3g}"


def _size_against_score(table: Table) -> str:
    """Whether small things are found worse than large ones."""
    share = true_share(table)
    kept = share > 0
    if not kept.any():
        return ""
    x, y = share[kept] * 100, table.column("dice")[kept]
    low, high = float(x.min()) / 1.15, min(100.0, float(x.max()) * 1.15)
    words = "each dot an image with foreground" + (
        "; the line joins the medians of five equal groups by size" if len(x) >= plots.ENOUGH else ""
    )
    svg = plots.scatter(x, y, Axis("area of the truth, % of the image", low, high, True), Axis("Dice", 0, 1))
    return markup.chart(svg, "Size against Dice:", words)


def _reliability(table: Table) -> str:
    """Whether probabilities mean what they say; nothing where none were given."""
    if table.reliability is None:
        return ""
    words = (
        "on the dashed diagonal a probability means what it says; below it the network is too sure. "
        f"Over all pixels it is off by {table.reliability.error():.3f} in the mean. Bars: pixels, log scale"
    )
    return markup.chart(plots.reliability(table.reliability.curve()), "Reliability:", words)


def _image_by_image(whole: Evaluation) -> str:
    """This set's Dice against the other's; nothing where none is compared."""
    if whole.other is None:
        return ""
    change = change_of_dice(whole)
    both = ~np.isnan(change)
    here = whole.table.column("dice")[both]
    across, upright = Axis("Dice of the other set", 0, 1), Axis("Dice of this set", 0, 1)
    svg = plots.scatter(here - change[both], here, across, upright, diagonal=True)
    words = "each dot an image; above the dashed diagonal this set is better"
    return markup.chart(svg, "Against the other set:", words)


def change_of_dice(whole: Evaluation) -> np.ndarray:
    """(n,) of each image: Dice of this set less the other's; NaN where the other lacks the image."""
    assert whole.other is not None, "asked only where there is one"
    there = dict(zip(whole.other.names, whole.other.column("dice")))
    return whole.table.column("dice") - np.array([there.get(name, np.nan) for name in whole.table.names])


def true_share(table: Table) -> np.ndarray:
    """(n,) the truth's share of each image, 0..1."""
    return (table.column("tp") + table.column("fn")) / (table.column("height") * table.column("width"))
