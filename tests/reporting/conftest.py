"""Folders of masks with a report to be made of them, and a real browser to look at it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

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


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Masks:
    """Forty pairs, three of them with empty masks, four with names that would be mark-up."""
    hostile = [name.replace("/", "\u2215") for name in HOSTILE]
    names = ["missed", "false_alarm", "both_empty", *hostile, *(f"set {i % 3}/p{i}" for i in range(33))]
    return draw_masks(tmp_path_factory.mktemp("masks"), names)


def data_of(report: Path) -> dict[str, Any]:
    """What the page's script reads: columns and rows."""
    text = report.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def column(data: dict[str, Any], key: str) -> list[Any]:
    place = [one["key"] for one in data["columns"]].index(key)
    return [row[place] for row in data["rows"]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from browser import NAMES, Browser, find

    program = find()
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    with Browser(program) as opened:
        yield opened
