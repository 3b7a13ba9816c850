"""curves.png: the loss, and validation IoU and Dice, over the steps of a run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ascseg_cli.training.log import Row

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

_SHARP = 2  # drawn so many times larger and then shrunk: Pillow's lines are not antialiased
_PANEL = (560, 400)  # px
_MARGIN = (64, 44, 20, 48)  # left, top, right, bottom
_INK, _FAINT = (40, 40, 40), (222, 222, 222)
_LOSS, _IOU, _DICE = (70, 70, 70), (0, 114, 178), (213, 94, 0)  # told apart without colour vision, too


@dataclass(frozen=True)
class _Line:
    name: str
    colour: Colour
    points: Points


def png(rows: Sequence[Row]) -> bytes:
    """Both panels, side by side, as a PNG."""
    width, height = _PANEL
    canvas = Image.new("RGB", (2 * width * _SHARP, height * _SHARP), "white")
    draw = ImageDraw.Draw(canvas)
    iou = _Line("pooled IoU", _IOU, [(row.step, row.validation_iou) for row in rows])
    dice = _Line("mean Dice", _DICE, [(row.step, row.validation_dice) for row in rows])
    loss = _Line("loss", _LOSS, [(row.step, row.loss) for row in rows])
    _panel(draw, 0, "Training loss", [loss])
    _panel(draw, width, "Validation", [iou, dice])
    out = io.BytesIO()
    canvas.resize((2 * width, height), Image.Resampling.LANCZOS).save(out, "PNG")
    return out.getvalue()


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at most `low` to at least `high`, evenly spaced, about `most` of them."""
    span = max(high - low, 1e-6)
    unit = 10 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _panel(draw: ImageDraw.ImageDraw, offset: int, title: str, lines: Sequence[_Line]) -> None:
    left, top, right, bottom = _MARGIN
    box = (offset + left, top, offset + _PANEL[0] - right, _PANEL[1] - bottom)
    across = ticks(0, max(x for line in lines for x, _ in line.points), 5)
    values = [y for line in lines for _, y in line.points]
    up = ticks(min(values), max(values))

    def at(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = (x - across[0]) / (across[-1] - across[0]), (y - up[0]) / (up[-1] - up[0])
        return box[0] + share_x * (box[2] - box[0]), box[3] - share_y * (box[3] - box[1])

    for y in up:
        _stroke(draw, [at(across[0], y), at(across[-1], y)], _FAINT, 1)
        _text(draw, (box[0] - 8, at(0, y)[1]), f"{y:g}", "rm")
    for x in across:
        _text(draw, (at(x, up[0])[0], box[3] + 8), f"{x:,g}", "ma")
    _stroke(draw, [(box[0], box[3]), (box[2], box[3])], _INK, 1)
    _text(draw, (box[0], 14), title, "la", size=15)
    _text(draw, ((box[0] + box[2]) / 2, _PANEL[1] - 8), "step", "md")
    for line in lines:
        points = [at(x, y) for x, y in line.points]
        _stroke(draw, points, line.colour, 2)
        for x, y in points:
            draw.ellipse([_SHARP * v for v in (x - 3, y - 3, x + 3, y + 3)], fill=line.colour)
    if len(lines) > 1:
        _legend(draw, lines, box[2])


def _legend(draw: ImageDraw.ImageDraw, lines: Sequence[_Line], right: float) -> None:
    for line in reversed(lines):
        length = draw.textlength(line.name, font=_font(12)) / _SHARP
        _text(draw, (right, 23), line.name, "rm", colour=line.colour)
        _stroke(draw, [(right - length - 26, 23), (right - length - 6, 23)], line.colour, 3)
        right -= length + 44


def _stroke(draw: ImageDraw.ImageDraw, points: Points, colour: Colour, width: int) -> None:
    draw.line([(_SHARP * x, _SHARP * y) for x, y in points], fill=colour, width=_SHARP * width, joint="curve")


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    words: str,
    anchor: str,
    size: int = 12,
    colour: Colour = _INK,
) -> None:
    draw.text((_SHARP * place[0], _SHARP * place[1]), words, fill=colour, font=_font(size), anchor=anchor)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_SHARP * size)
