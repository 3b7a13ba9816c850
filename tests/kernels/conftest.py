"""Lets the tests in this folder import `cases`, which scripts use too, and skips what can't run here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ascseg_cli.kernels import backend

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def device(backend_name: str) -> str:
    """The device on which `backend_name` runs; the test skips, with the reason, where it can't."""
    status = backend.availability(backend_name)
    if not status.ok:
        pytest.skip(f"backend {backend_name}: {status.reason}")
    return "cpu" if backend_name in ("cpu", "reference") else "cuda"
