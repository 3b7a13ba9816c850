"""What tests of the command line share; lets them import `predict_runs`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four good pictures in two folders, one damaged one, a text file."""
    folder = tmp_path / "photos"
    (folder / "환자 1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "환자 1/사진 🙂.png", "환자 1/a.png")):
        pixels = rng.integers(0, 256, (40 + 10 * number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "z_cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder
