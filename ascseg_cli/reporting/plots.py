"""Charts as inline SVG: coloured by the page's style sheet, and readable without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38
_BINS = 20
ENOUGH = 25  # images, for medians of fifths


@dataclass(frozen=True)
class Axis:
    """One direction of a chart: values from low to high, in even or logarithmic steps.

    whole  they are counts
    """

    label: str
    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0..1; beyond the ends it lies on them."""
        low, high, value = (
            math.log10(max(x, 1e-12)) if self.logarithmic else x for x in (self.low, self.high, value)
        )
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Round values to write along it."""
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            marks = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
            marks = [mark for mark in marks if self.low <= mark <= self.high] or [self.low, self.high]
            return marks[:: math.ceil(len(marks) / 6)]
        step = _round_step((self.high - self.low) / 5)
        step = max(1.0, step) if self.whole else step
        start = math.ceil(self.low / step - 1e-9)
        return [step * i for i in range(start, math.floor(self.high / step + 1e-9) + 1)]


def histogram(values: np.ndarray, axis: Axis, mean: float | None, *, of: str = "images") -> str:
    """How values spread over an axis, with their mean as a line."""
    counts, edges = np.histogram(np.clip(values, axis.low, axis.high), _BINS, (axis.low, axis.high))
    upright = Axis(of, 0, max(1, int(counts.max())), whole=True)
    marks = [
        _box(axis.share(left), axis.share(right), upright.share(int(count)), f"{count:,} {of}")
        for count, left, right in zip(counts, edges, edges[1:])
        if count
    ]
    if mean is not None:
        x = _x(axis.share(mean))
        marks.append(f'<path class="mean" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        marks.append(_text(x + (4 if x < _WIDTH - 90 else -4), _TOP + 9, f"mean {_short(mean)}", "mean-label" + (
            "" if x < _WIDTH - 90 else " end"
        )))  # fmt: skip
    told = f"Histogram of {axis.label}: {len(values):,} {of}" + ("" if mean is None else f", mean {_short(mean)}")
    return _chart(told, axis, upright, marks)


def scatter(x: np.ndarray, y: np.ndarray, across: Axis, upright: Axis, *, diagonal: bool = False) -> str:
    """One dot an image; and the diagonal, or the median of each fifth of them by x, where there are enough."""
    places = {(round(_x(across.share(a)), 1), round(_y(upright.share(b)), 1)) for a, b in zip(x, y)}
    dots = "".join(f"M{a:g} {b:g}h0" for a, b in sorted(places))
    marks = [f'<path class="dots" d="{dots}"/>']
    if diagonal:
        marks.append(_line("diagonal", [(0, 0), (1, 1)]))
    elif len(x) >= ENOUGH:
        fifths = np.array_split(np.argsort(x, kind="stable"), 5)
        centres = [(float(np.median(x[part])), float(np.median(y[part]))) for part in fifths]
        marks.append(_line("median", [(across.share(a), upright.share(b)) for a, b in centres]))
    told = f"{upright.label} against {across.label}, {len(x):,} images"
    return _chart(told, across, upright, marks)


def reliability(curve: Sequence[dict[str, Any]]) -> str:
    """Predicted probability against the share of foreground that was there; pixels of each bin as bars below."""
    across, upright = Axis("mean probability", 0, 1), Axis("share that is foreground", 0, 1)
    most = math.log10(1 + max(part["pixels"] for part in curve))
    marks = [
        _box(part["low"], part["high"], 0.2 * math.log10(1 + part["pixels"]) / most, f"{part['pixels']:,} pixels")
        for part in curve
        if part["pixels"]
    ]
    marks.append(_line("diagonal", [(0, 0), (1, 1)]))
    points = [(part["mean_probability"], part["foreground"]) for part in curve if part["pixels"]]
    marks.append(_line("curve", points))
    marks.append("".join(f'<circle class="knot" cx="{_x(a):.1f}" cy="{_y(b):.1f}" r="3"/>' for a, b in points))
    return _chart("Reliability: share of foreground against mean probability, by bin", across, upright, marks)


def whisker(mean: float | None, low: float | None, high: float | None, axis: Axis) -> str:
    """A mean as a dot on its interval, on a line of its own; decoration beside the same figures in words."""
    if mean is None:
        return ""
    rail, scale = 4, 112
    x = rail + scale * axis.share(mean)
    parts = [f'<path class="rail" d="M{rail} 8h{scale}"/>', f'<circle class="knot" cx="{x:.1f}" cy="8" r="3.2"/>']
    if low is not None and high is not None:
        left, right = (rail + scale * axis.share(end) for end in (low, high))
        parts.append(f'<path class="whisker" d="M{left:.1f} 4v8m0-4H{right:.1f}m0-4v8"/>')
    box = 'viewBox="0 0 120 16" width="120" height="16"'
    return f'<svg class="mini" {box} aria-hidden="true">{"".join(parts)}</svg>'


def _chart(told: str, across: Axis, upright: Axis, marks: Iterable[str]) -> str:
    base, end = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in upright.ticks():
        y = _y(upright.share(value))
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{end}"/>')
        parts.append(_text(_LEFT - 5, y + 3.5, _short(value), "tick end"))
    for value in across.ticks():
        x = _x(across.share(value))
        parts.append(f'<path class="tick-mark" d="M{x:.1f} {base}v4"/>')
        parts.append(_text(x, base + 15, _short(value), "tick middle"))
    parts += marks
    parts.append(f'<path class="axis" d="M{_LEFT} {base}H{end}"/>')
    parts.append(_text((_LEFT + end) / 2, _HEIGHT - 6, across.label, "label middle"))
    middle = (_TOP + base) / 2
    turned = f'transform="rotate(-90 11 {middle:g})"'
    parts.append(f'<text class="label middle" x="11" y="{middle:g}" {turned}>{escape(upright.label)}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">'
        f"{''.join(parts)}</svg>"
    )


def _box(left: float, right: float, height: float, told: str) -> str:
    x, width, y = _x(left) + 0.5, _x(right) - _x(left) - 1, _y(height)
    size = f'width="{width:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}"'
    return f'<rect class="count" x="{x:.1f}" y="{y:.1f}" {size}><title>{escape(told)}</title></rect>'


def _line(kind: str, points: Iterable[tuple[float, float]]) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{_x(a):.1f} {_y(b):.1f}" for a, b in points)}"/>'


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _RIGHT - _LEFT) * share


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share


def _round_step(wanted: float) -> float:
    """1, 2 or 5 times a power of ten: the next above."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted * (1 - 1e-9))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
