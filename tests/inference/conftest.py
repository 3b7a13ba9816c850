"""A stand-in for the network, and folders of drawn pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.data.discover import Found, Item

sys.path.insert(0, str(Path(__file__).parent))  # for `stand_in`, which scripts use too

from runner import Runner
from stand_in import GreenEngine, green_disc, save_picture


@pytest.fixture
def engine() -> GreenEngine:
    return GreenEngine()


@pytest.fixture
def runner(engine: GreenEngine, tmp_path: Path) -> Runner:
    return Runner(engine, tmp_path / "out")


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    return green_disc


@pytest.fixture
def found(tmp_path: Path) -> Callable[[int], Found]:
    """A folder of `count` pictures; the second is without foreground."""

    def make(count: int) -> Found:
        items = []
        for number in range(count):
            path = tmp_path / "photos" / f"{number:03}.png"
            save_picture(path, np.zeros((50, 70, 3), np.uint8) if number == 1 else green_disc(number))
            items.append(Item(str(path), path.name, path.stem))
        return Found(tuple(items))

    return make
