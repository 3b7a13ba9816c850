"""The scores as a page of text, 80 columns wide: figures with their intervals, then the protocols side by side."""

from __future__ import annotations

from collections.abc import Iterable

from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.evaluation.metrics import METRICS
from ascseg_cli.evaluation.summary import QUOTED_BY, Figure, Summary


def text(whole: Evaluation, protocols: Iterable[str]) -> str:
    """Everything that a person reads first; ends in a line's end."""
    lines = _figures(whole)
    lines += _fillings(whole)
    lines += ["", *_protocols(whole.summary, protocols)]
    if whole.unseen is not None:
        lines += ["", *_unseen(whole.summary, whole.unseen)]
    if whole.comparison is not None:
        lines += ["", *_comparison(whole)]
    return "\n".join(lines) + "\n"


def _figures(whole: Evaluation) -> list[str]:
    units = "" if whole.groups is None else f", drawn by {int(whole.groups.max()) + 1:,} groups"
    failed = len(whole.table.unscored)
    head = f"{len(whole.table):,} images" + (f"; {failed:,} failed and are in no figure" if failed else "")
    lines = [head + units, "", f"{'metric':28}{'mean':>9}   {'95 % interval':^19}{'n':>9}{'filled':>9}"]
    for name, figure in whole.summary.metrics.items():
        if name.startswith("polyp255"):
            continue
        metric = METRICS[name]
        label = f"{metric.label} ({whole.ruler.unit})" if metric.kind == "distance" else metric.label
        filled = f"{figure.filled:,}" if figure.filled else ""
        lines.append(
            f"{label:28}{_number(figure.mean):>9}   {_interval(figure):^19}{figure.n:>9,}{filled:>9}".rstrip()
        )
    return lines


def _fillings(whole: Evaluation) -> list[str]:
    cases = whole.summary.cases
    if not whole.table or cases["found"] == len(whole.table):
        return []
    lines = [
        "",
        f"empty masks: {cases['missed']:,} missed (nothing predicted), {cases['false_alarm']:,} false alarms "
        f"(no truth), {cases['both_empty']:,} both",
    ]
    if cases["missed"] + cases["false_alarm"]:
        lines.append("filled: their distance is undefined, so the image's diagonal counts")
    return lines


def _protocols(summary: Summary, wanted: Iterable[str]) -> list[str]:
    lines = [f"{'protocol':11}{'what the literature quotes':49}{'Dice':>10}{'IoU':>10}"]
    for name in wanted:
        figures = summary.protocols[name]
        if figures is None:
            lines.append(f"{name:11}{'needs probabilities: evaluate DATA with weights':49}{'-':>10}{'-':>10}")
        else:
            dice, iou = (_number(figures[m].mean) if m in figures else "-" for m in ("dice", "iou"))
            lines.append(f"{name:11}{QUOTED_BY[name]:49}{dice:>10}{iou:>10}")
    return lines


def _unseen(all_images: Summary, unseen: Summary) -> list[str]:
    lines = [f"{'seen in training':28}{'with':>12}{'without':>12}"]
    for name in ("dice", "iou", "hd95"):
        pair = (summary.metrics[name] for summary in (all_images, unseen))
        lines.append(f"{METRICS[name].label:28}" + "".join(f"{_number(figure.mean):>12}" for figure in pair))
    return lines


def _comparison(whole: Evaluation) -> list[str]:
    found = whole.comparison
    assert found is not None, "asked only where there is one"
    lone = f"; {found.only_here:,} only here, {found.only_there:,} only there" * bool(
        found.only_here + found.only_there
    )
    lines = [
        f"against the other, on {found.images:,} images{lone}",
        f"{'metric':21}{'change':>9}  {'95 % interval':^19}{'p':>8}{'effect':>8}{'better/worse':>13}",
    ]
    for name, one in found.metrics.items():
        if name.startswith("polyp255"):
            continue
        p = "-" if one.p_value is None else f"{one.p_value:.2g}"
        effect = "-" if one.effect is None else f"{one.effect:+.2f}"
        interval = _interval(Figure(one.mean, one.low, one.high, found.images))
        counts = f"{one.better:,}/{one.worse:,}"
        change = _number(one.mean, sign="+")
        lines.append(f"{METRICS[name].label:21}{change:>9}  {interval:^19}{p:>8}{effect:>8}{counts:>13}")
    return [*lines, "p: Wilcoxon signed ranks; effect: rank-biserial, above 0: this set is better"]


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    digits = 4 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:{sign},.{digits}f}"


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "-"
    return f"{_number(figure.low)} to {_number(figure.high)}"
