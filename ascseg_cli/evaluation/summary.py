"""What the figures of all images come to: means with intervals, and the protocols that the literature uses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ascseg_cli.evaluation.bootstrap import Plan, Ratio, grouped, intervals
from ascseg_cli.evaluation.metrics import METRICS, Counts, case_of
from ascseg_cli.evaluation.table import Table

PROTOCOLS = ("per_image", "pooled", "isic", "polyp255")
QUOTED_BY = {
    "per_image": "MONAI and most medical papers: mean over images",
    "pooled": "ASC-Seg, VM-UNet: all pixels as one image",
    "isic": "ISIC from 2018: mean of IoU, 0 where below .65",
    "polyp255": "PraNet, polyp papers: mean of 256 thresholds",
}
POOLED = {  # sums of these pixels over those
    "dice": ("tp tp", "tp tp fp fn"),
    "iou": ("tp", "tp fp fn"),
    "sensitivity": ("tp", "tp fn"),
    "specificity": ("tn", "tn fp"),
    "precision": ("tp", "tp fp"),
    "accuracy": ("tp tn", "tp fp fn tn"),
}
ISIC_LIMIT = 0.65
_PIXELS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class Figure:
    """One figure of a summary.

    low, high  its interval; None where there are too few images
    n          images it rests on
    filled     of them with a stated value in place of an undefined one
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    filled: int = 0


@dataclass(frozen=True)
class Summary:
    """Everything over all images.

    metrics    by metric
    protocols  by protocol and metric; None where masks alone can't tell
    cases      images by what their masks hold, see metrics.case_of
    """

    metrics: dict[str, Figure]
    protocols: dict[str, dict[str, Figure] | None]
    cases: dict[str, int]

    def find(self, name: str) -> Figure | None:
        """The figure `dice`, or `pooled.iou`; None where there is no such figure."""
        protocol, _, metric = name.rpartition(".")
        return (self.protocols.get(protocol) or {}).get(metric) if protocol else self.metrics.get(metric)


def summarise(table: Table, plan: Plan, groups: np.ndarray | None, scale: float) -> Summary:
    """Means and protocols of a table with at least one image.

    groups  (n,) number of each image's group; None: each image is its own
    scale   the unit's length of a pixel
    """
    columns = _Columns(table, scale)
    figures = _figures(columns, [*map(columns.mean_of, table.metrics), *_fractions(columns)], groups, plan)
    means = {
        name: replace(figure, n=columns.defined[name], filled=columns.defined[name] - _defined(table.column(name)))
        for name, figure in zip(table.metrics, figures)
    }
    rest = figures[len(means) :]
    protocols: dict[str, dict[str, Figure] | None] = {
        "per_image": {n: figure for n, figure in means.items() if not n.startswith("polyp255")},
        "pooled": dict(zip(POOLED, rest)),
        "isic": {"iou": rest[-1]},
        "polyp255": {n: means[f"polyp255_{n}"] for n in ("dice", "iou")} if "polyp255_iou" in means else None,
    }
    if table.reliability is not None and (pooled_figures := protocols["pooled"]) is not None:
        pooled_figures["ece"] = Figure(table.reliability.error(), None, None, len(table))
    return Summary(means, protocols, _cases(table))


class _Columns:
    """What figures are sums of, in one matrix: it is the largest thing in memory while intervals are drawn.

    matrix   (n, k) float64: metrics, 0 where undefined; pixels; ISIC's IoU; 1 for each image; and 1 for each
             image where a metric that isn't defined in all of them is
    defined  images in which a metric has a value, stated ones included
    """

    def __init__(self, table: Table, scale: float) -> None:
        self.defined = {name: _defined(table.filled(name, scale)) for name in table.metrics}
        partly = [name for name, count in self.defined.items() if count < len(table)]
        names = (*table.metrics, *_PIXELS, "isic", "images", *map(_has, partly))
        self._places = {name: place for place, name in enumerate(names)}
        self.matrix = np.empty((len(table), len(names)))
        for name in table.metrics:
            values = table.filled(name, scale)
            self._set(name, np.where(np.isnan(values), 0.0, values))
            if name in partly:
                self._set(_has(name), ~np.isnan(values))
        for name in _PIXELS:
            self._set(name, table.column(name))
        iou = table.column("iou")
        self._set("isic", np.where(iou >= ISIC_LIMIT, iou, 0.0))
        self._set("images", np.ones(len(table)))

    def ratio(self, top: str, bottom: str) -> Ratio:
        """A figure by the names of the columns above and below."""
        above, below = (tuple(self._places[name] for name in names.split()) for names in (top, bottom))
        return Ratio(above, below)

    def mean_of(self, metric: str) -> Ratio:
        """A metric's mean over the images that have it."""
        return self.ratio(metric, _has(metric) if _has(metric) in self._places else "images")

    def _set(self, name: str, values: np.ndarray) -> None:
        self.matrix[:, self._places[name]] = values


def _has(metric: str) -> str:
    return f"has_{metric}"


def _defined(values: np.ndarray) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _fractions(columns: _Columns) -> list[Ratio]:
    """The figures of POOLED, then ISIC's."""
    return [*(columns.ratio(*names) for names in POOLED.values()), columns.ratio("isic", "images")]


def _figures(columns: _Columns, ratios: Sequence[Ratio], groups: np.ndarray | None, plan: Plan) -> list[Figure]:
    bounds = intervals(grouped(columns.matrix, groups), ratios, plan)
    sums = columns.matrix.sum(axis=0)
    means = (float(ratio.of(sums)) for ratio in ratios)
    return [
        Figure(None if math.isnan(mean) else mean, low, high, len(columns.matrix))
        for mean, (low, high) in zip(means, (bound or (None, None) for bound in bounds))
    ]


def _cases(table: Table) -> dict[str, int]:
    """Images by case, which follows from which counts are 0."""
    holds = np.stack([table.column(name) > 0 for name in _PIXELS], axis=1)
    found: Counter[str] = Counter()
    for pattern, images in zip(*np.unique(holds, axis=0, return_counts=True)):
        found[case_of(Counts(*map(int, pattern)))] += int(images)
    return {case: found[case] for case in ("found", "missed", "false_alarm", "both_empty")}


def to_json(summary: Summary) -> dict[str, object]:
    """`summary`, `protocols` (numbers by metric) and their intervals, as in `--json`."""
    protocols = {
        protocol: None if found is None else {metric: figure.mean for metric, figure in found.items()}
        for protocol, found in summary.protocols.items()
    }
    bounds = {
        protocol: None if found is None else {metric: [f.low, f.high] for metric, f in found.items()}
        for protocol, found in summary.protocols.items()
    }
    return {
        "summary": {name: asdict(figure) for name, figure in summary.metrics.items()},
        "protocols": protocols,
        "protocol_intervals": bounds,
        "cases": summary.cases,
        "falling": [name for name in summary.metrics if not METRICS[name].rising],
    }
