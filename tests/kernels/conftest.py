"""Lets the tests in this folder import `cases`, which scripts use too, and skips what can't run here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascseg_cli.kernels import backend

sys.path.insert(0, str(Path(__file__).resolve().parent))

from emulator.emulate import COMPILER, emulated


@pytest.fixture
def device(backend_name: str) -> str:
    """The device on which `backend_name` runs; the test skips, with the reason, where it can't."""
    status = backend.availability(backend_name)
    if not status.ok:
        pytest.skip(f"backend {backend_name}: {status.reason}")
    return "cpu" if backend_name in ("cpu", "reference") else "cuda"


@pytest.fixture(params=["emulated", "cuda"])
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device of the tensors."""
    if request.param == "cuda":
        status = backend.availability("gpu")
        if not status.ok:
            pytest.skip(f"backend gpu: {status.reason}")
        yield "cuda"
        return
    if COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulated():
        yield "cpu"
