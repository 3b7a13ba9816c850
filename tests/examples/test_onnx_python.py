"""The Python example runs where nothing of ours can be imported, and finds what the network finds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "examples/onnx_python/segment.py"
ALONE = """
import runpy, sys
for name in ("ascseg_cli", "torch", "onnx", "cv2", "numba", "pydantic"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_mask_is_the_networks(
    model: Path, picture: Path, check: Callable[[np.ndarray], None], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the example runs on onnxruntime")
    target = tmp_path / "mask.png"
    command = [sys.executable, "-c", ALONE, SCRIPT, model, picture, target]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    check(np.asarray(Image.open(target)))
    assert run.stdout.startswith("kvasir-tiny: ")
    assert run.stderr == ""


def test_wrong_usage_says_how(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, SCRIPT, "a"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (run.returncode, run.stderr.strip()) == (1, "usage: segment.py MODEL.onnx PICTURE MASK.png")
