"""The Node example, with its packages installed by npm, finds what the network finds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def test_the_mask_is_the_networks(
    installed: Callable[[str], Path], model: Path, picture: Path, check: Callable[[np.ndarray], None]
) -> None:
    folder = installed("onnx_node")
    command = ["node", "segment.mjs", model, picture, "mask.png"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    with Image.open(folder / "mask.png") as mask:
        assert mask.mode == "L"
        check(np.asarray(mask))
    assert "% of " in run.stdout
