"""What the figures of all images come to: means with intervals, and the protocols that the literature uses."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np

from ascseg_cli.evaluation.bootstrap import Plan, grouped, intervals
from ascseg_cli.evaluation.metrics import METRICS, Counts, case_of
from ascseg_cli.evaluation.table import Table

PROTOCOLS = ("per_image", "pooled", "isic", "polyp255")
QUOTED_BY = {
    "per_image": "MONAI and most medical papers: mean over images",
    "pooled": "ASC-Seg, VM-UNet: all pixels as one image",
    "isic": "ISIC from 2018: mean of IoU, 0 where below .65",
    "polyp255": "PraNet, polyp papers: mean of 256 thresholds",
}
POOLED = ("dice", "iou", "sensitivity", "specificity", "precision", "accuracy")
ISIC_LIMIT = 0.65


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
    values = np.stack([table.filled(name, scale) for name in table.metrics], axis=1)
    defined = ~np.isnan(values)
    iou = table.column("iou")
    tops, bottoms = _pooled(table)
    all_tops = [np.where(defined, values, 0.0), tops, np.where(iou >= ISIC_LIMIT, iou, 0.0)[:, None]]
    all_bottoms = [defined.astype(float), bottoms, np.ones((len(iou), 1))]
    sums = np.concatenate(all_tops, axis=1), np.concatenate(all_bottoms, axis=1)
    filled = [int((np.isnan(table.column(n)) & defined[:, i]).sum()) for i, n in enumerate(table.metrics)]
    count = len(table.metrics)
    figures = [Figure(*numbers, len(iou)) for numbers in _figures(*sums, groups, plan)]
    means = {
        name: replace(figures[i], n=int(defined[:, i].sum()), filled=filled[i])
        for i, name in enumerate(table.metrics)
    }
    protocols: dict[str, dict[str, Figure] | None] = {
        "per_image": {n: figure for n, figure in means.items() if not n.startswith("polyp255")},
        "pooled": {name: figures[count + i] for i, name in enumerate(POOLED)},
        "isic": {"iou": figures[-1]},
        "polyp255": {n: means[f"polyp255_{n}"] for n in ("dice", "iou")} if "polyp255_iou" in means else None,
    }
    if table.reliability is not None and (pooled_figures := protocols["pooled"]) is not None:
        pooled_figures["ece"] = Figure(table.reliability.error(), None, None, len(iou))
    return Summary(means, protocols, _cases(table))


def _figures(
    tops: np.ndarray, bottoms: np.ndarray, groups: np.ndarray | None, plan: Plan
) -> list[tuple[float | None, float | None, float | None]]:
    bounds = intervals(grouped(tops, groups), grouped(bottoms, groups), plan)
    sums = zip(tops.sum(axis=0), bottoms.sum(axis=0))
    means = [float(top / bottom) if bottom else None for top, bottom in sums]
    return [(mean, *(bound or (None, None))) for mean, bound in zip(means, bounds)]


def _pooled(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators (n, m) whose sums make the figures of POOLED."""
    tp, fp, fn, tn = (table.column(name) for name in ("tp", "fp", "fn", "tn"))
    ratios = {
        "dice": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "precision": (tp, tp + fp),
        "accuracy": (tp + tn, tp + fp + fn + tn),
    }
    tops, bottoms = (np.stack([ratios[name][i] for name in POOLED], axis=1) for i in (0, 1))
    return tops, bottoms


def _cases(table: Table) -> dict[str, int]:
    columns = [table.column(name).astype(np.int64).tolist() for name in ("tp", "fp", "fn", "tn")]
    found = Counter(case_of(Counts(*row)) for row in zip(*columns))
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
