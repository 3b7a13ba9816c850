"""The figures of an evaluation as HTML tables: means with intervals, protocols, seen images, a comparison."""

from __future__ import annotations

from collections.abc import Iterator

from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.evaluation.metrics import METRICS, Ruler
from ascseg_cli.evaluation.summary import PROTOCOLS, QUOTED_BY, Figure, Summary
from ascseg_cli.reporting import markup, plots
from ascseg_cli.reporting.plots import Axis
from ascseg_cli.reporting.words import METRIC, figure, interval, shown

_METHOD = {"bca": "BCa", "percentile": "percentile"}


def label(name: str, ruler: Ruler) -> str:
    """A metric's name with its unit."""
    return f"{METRICS[name].label} ({ruler.unit})" if METRICS[name].kind == "distance" else METRICS[name].label


def summary(whole: Evaluation) -> str:
    """Every mean with its interval, what it is, and how many images it rests on."""
    found = {n: f for n, f in whole.summary.metrics.items() if not n.startswith("polyp255")}
    plan = whole.plan
    units = "images" if whole.groups is None else f"{int(whole.groups.max()) + 1:,} groups of images"
    rows = [_summary_row(name, one, whole.ruler) for name, one in found.items()]
    heads = ("metric", "mean", f"{plan.level:.0%} interval", "", "n", "filled", "what it is")
    return markup.table(
        f"Means over images. Intervals: bootstrap ({_METHOD[plan.method]}), {plan.resamples:,} draws of {units}",
        heads, rows, words=(0, 3, 6),
    )  # fmt: skip


def _summary_row(name: str, one: Figure, ruler: Ruler) -> list[str]:
    mini = ""
    if METRICS[name].kind != "distance" and name != "area_error":
        mini = plots.whisker(one.mean, one.low, one.high, Axis("", 0, 1))
    words = METRIC[name] + ("" if METRICS[name].rising else "; less is better")
    if name == "nsd":
        words = words.replace("the tolerance", f"{ruler.tolerance:g} {ruler.unit}")
    return [
        shown(label(name, ruler)), figure(one.mean), interval(one.low, one.high), mini,
        f"{one.n:,}", f"{one.filled:,}" if one.filled else "", f"<small>{shown(words)}</small>",
    ]  # fmt: skip


def protocols(found: Summary) -> str:
    """Dice and IoU by each of the ways in which the literature puts figures together."""
    rows = []
    for name in PROTOCOLS:
        figures = found.protocols[name]
        cells = (
            ["needs probabilities", ""] if figures is None else [_cell(figures.get(m)) for m in ("dice", "iou")]
        )
        rows.append([shown(name), *cells, f"<small>{shown(QUOTED_BY[name])}</small>"])
    return markup.table(
        "The same predictions by each protocol: compare only figures of one and the same",
        ("protocol", "Dice", "IoU", "what the literature quotes"), rows, words=(0, 3),
    )  # fmt: skip


def _cell(one: Figure | None) -> str:
    if one is None:
        return "–"
    bounds = interval(one.low, one.high)
    return figure(one.mean) + (f"<br><small>{bounds}</small>" if bounds != "–" else "")


def unseen(all_images: Summary, without: Summary, ruler: Ruler) -> str:
    """Figures with and without the images that the weights were trained on."""
    rows = [
        [shown(label(name, ruler)), _cell(all_images.metrics[name]), _cell(without.metrics[name])]
        for name in ("dice", "iou", "hd95", "nsd")
    ]
    count = without.metrics["dice"].n
    heads = ("metric", "all images", f"{count:,} images not seen")
    return markup.table("Only images that weights have not seen tell of new ones", heads, rows)


def comparison(whole: Evaluation) -> str:
    """Each metric's mean difference to the other set, and whether that could be chance."""
    found = whole.comparison
    if found is None:
        return ""
    lone = f" ({found.only_here:,} only here, {found.only_there:,} only there)"
    heads = ("metric", "change", f"{whole.plan.level:.0%} interval", "p", "effect", "better", "equal", "worse")
    return markup.table(
        f"This set less the other, over {found.images:,} images"
        + lone * bool(found.only_here + found.only_there)
        + ". p: Wilcoxon signed ranks; effect: rank-biserial, above 0 where this set is better",
        heads, _differences(whole),
    )  # fmt: skip


def _differences(whole: Evaluation) -> Iterator[list[str]]:
    assert whole.comparison is not None, "asked only where there is one"
    for name, one in whole.comparison.metrics.items():
        if name.startswith("polyp255"):
            continue
        yield [
            shown(label(name, whole.ruler)),
            figure(one.mean, "+"),
            interval(one.low, one.high, "+"),
            "–" if one.p_value is None else f"{one.p_value:.2g}",
            "–" if one.effect is None else f"{one.effect:+.2f}".replace("-", "−"),
            *(f"{count:,}" for count in (one.better, one.equal, one.worse)),
        ]
