"""overlays.jpg: validation images with what was found and what is true, from the worst to the best."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ascseg_cli.data.preprocess import resize_probability
from ascseg_cli.training.images import read_pair
from ascseg_cli.training.validation import Validation, Verdict

_COLUMNS, _MOST = 4, 12
_CELL, _CAPTION, _HEAD = 280, 20, 30  # px
_FOUND, _TRUE = (0, 210, 255), (255, 210, 0)  # cyan and yellow stand out on skin, mucosa and ultrasound
_GROUND, _INK = (24, 24, 24), (235, 235, 235)


def jpeg(validation: Validation, verdict: Verdict) -> bytes:
    """The sheet as a JPEG: at most twelve images, evenly spread over the validation part by their Dice."""
    dice = verdict.counts.dice()
    order = np.argsort(dice, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(_MOST, len(order))).round().astype(int)]
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (max(columns * _CELL, 2 * _CELL), _HEAD + rows * (_CELL + _CAPTION)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    _head(draw, verdict.threshold)
    for number, i in enumerate(chosen):
        x, y = number % columns * _CELL, _HEAD + number // columns * (_CELL + _CAPTION)
        cell = _cell(validation, verdict, int(i))
        sheet.paste(cell, (x + (_CELL - cell.width) // 2, y + (_CELL - cell.height) // 2))
        name = _shortened(validation.pairs[i].image.name)
        draw.text(
            (x + 6, y + _CELL + 2), f"Dice {dice[i]:.3f}  {name}", fill=_INK, font=ImageFont.load_default(13)
        )
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=90)
    return out.getvalue()


def _cell(validation: Validation, verdict: Verdict, i: int) -> Image.Image:
    """One image, shrunk or enlarged to the cell, with both outlines."""
    pixels, truth = read_pair(validation.pairs[i])
    found = resize_probability(verdict.maps[i], truth.shape) >= verdict.threshold
    scale = (_CELL - 6) / max(truth.shape)
    size = max(1, round(truth.shape[1] * scale)), max(1, round(truth.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for mask, colour in ((truth, _TRUE), (found, _FOUND)):
        _outline(small, mask, colour)
    return Image.fromarray(small)


def _outline(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw a mask's border into a picture of another size, in place."""
    at_size = cv2.resize(mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(at_size, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, colour, 2, cv2.LINE_AA)


def _head(draw: ImageDraw.ImageDraw, threshold: float) -> None:
    font = ImageFont.load_default(15)
    x = 6.0
    for words, colour in ((f"found (p >= {threshold:g})", _FOUND), ("true", _TRUE), ("worst to best Dice", _INK)):
        draw.text((x, 6), words, fill=colour, font=font)
        x += draw.textlength(words, font=font) + 24


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:9]}...{name[-12:]}"
