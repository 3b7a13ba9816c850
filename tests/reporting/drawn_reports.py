"""Folders of masks for a report to be made of, and what a report's script reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOSTILE = (
    "<img src=x onerror=window.hacked=1>",
    "a&amp;b \"quoted\" 'n' `tick`",
    "</script><script>window.hacked=2<",
    "\u202egnp.exe ${window.hacked=3}",
)


@dataclass(frozen=True)
class Masks:
    """Predictions and truths under the same names: `missed`, `false_alarm` and `both_empty` are what they say."""

    pred: Path
    truth: Path
    names: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        return ["evaluate", "--pred", str(self.pred), "--truth", str(self.truth)]


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.indices(size)
    return np.hypot(y - centre[0], x - centre[1]) < radius


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def draw_masks(folder: Path, names: list[str]) -> Masks:
    random = np.random.default_rng(3)
    for i, name in enumerate(names):
        size = (60 + i % 7, 90)
        truth = disc(size, (30, 45), 8 + i % 12)
        pred = disc(size, (30 + random.normal(0, 3), 45 + random.normal(0, 3)), 8 + i % 12)
        if name in ("missed", "both_empty"):
            pred[:] = False
        if name in ("false_alarm", "both_empty"):
            truth[:] = False
        for side, mask in (("pred", pred), ("truth", truth)):
            save(folder / side / f"{name}.png", mask.astype(np.uint8) * 255)
    return Masks(folder / "pred", folder / "truth", tuple(names))


def data_of(report: Path) -> dict[str, Any]:
    """What the page's script reads: columns and rows."""
    text = report.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def column(data: dict[str, Any], key: str) -> list[Any]:
    place = [one["key"] for one in data["columns"]].index(key)
    return [row[place] for row in data["rows"]]
