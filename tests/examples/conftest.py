"""An exported file of the shipped weights, what the network itself finds, and packages of Node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import cli

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "examples" / "polyps" / "polyp_1.jpg"
MOST_CHANGED = 1e-4  # of the pixels: what an export may change

sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, picture: Path) -> Path:
    """The shipped weights for polyps as `ascseg export` writes them."""
    pytest.importorskip("onnx", reason="exported files are written with onnx")
    path = tmp_path_factory.mktemp("model") / "kvasir.onnx"
    command = ["export", "--dataset", "kvasir", "--format", "onnx", "--images", picture, "--output", path]
    assert cli.run([str(word) for word in command]) == 0
    return path


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that every decoder reads alike, smaller than the example so that all go fast."""
    path = tmp_path_factory.mktemp("picture") / "polyp.png"
    with Image.open(PICTURE) as image:
        image.resize((300, 252), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def expected(picture: Path) -> np.ndarray:
    """The mask (h, w) bool that the network in torch finds."""
    from ascseg_cli import Segmenter

    return Segmenter.from_pretrained("kvasir", device="cpu", threads=1)(picture).mask


@pytest.fixture
def check(expected: np.ndarray) -> Callable[[np.ndarray], None]:
    """Holds a mask of 0 and 255 to what is expected."""

    def compare(mask: np.ndarray) -> None:
        assert mask.shape == expected.shape
        assert set(np.unique(mask)) == {0, 255}
        assert ((mask > 0) != expected).mean() <= MOST_CHANGED
        assert 0.02 < expected.mean() < 0.3

    return compare


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an example with the packages that it names."""

    def install(name: str) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm isn't installed")
        folder = tmp_path / name
        shutil.copytree(ROOT / "examples" / name, folder, ignore=shutil.ignore_patterns("node_modules"))
        command = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        words = run.stdout + run.stderr
        if any(code in words for code in ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")):
            pytest.skip("npm can't reach its registry")
        assert run.returncode == 0, words
        return folder

    return install
