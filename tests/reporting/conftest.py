"""Folders of masks with a report to be made of them, and a real browser to look at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from drawn_reports import HOSTILE, Masks, draw_masks
from real_browser import NAMES, Browser, find


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Masks:
    """Forty pairs, three of them with empty masks, four with names that would be mark-up."""
    hostile = [name.replace("/", "\u2215") for name in HOSTILE]
    names = ["missed", "false_alarm", "both_empty", *hostile, *(f"set {i % 3}/p{i}" for i in range(33))]
    return draw_masks(tmp_path_factory.mktemp("masks"), names)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(NAMES)}")
    with Browser(program) as opened:
        yield opened
