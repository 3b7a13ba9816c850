"""A drawn data set for the tests of training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `drawn_runs`, which scripts use too

from drawn_runs import draw_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set of 30 images."""
    return draw_folder(tmp_path_factory.mktemp("drawn") / "discs")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Waiting for threads takes longer than these runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
