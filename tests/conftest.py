"""What all tests share: where the golden file and the development data lie."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden" / "reference_c8.safetensors"
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Weights, input and every intermediate result of the original computation."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data: real images with masks, one folder a set; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the development data isn't at {SHARED_DATA}")
    return SHARED_DATA
