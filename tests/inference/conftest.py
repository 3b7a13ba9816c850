"""A stand-in for the network, so that tests of everything around it take milliseconds; and drawn pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ascseg_cli.data.discover import Found, Item
from ascseg_cli.inference.tta import prepared
from ascseg_cli.network.metadata import Metadata, Preprocessing


class GreenEngine:
    """Probability = how green the (blurred) image is; notes the batches that it was given."""

    backend, backend_note, device, first_wait = "reference", "", "cpu", ""
    takes_several = takes_pixels = False
    weights_sha256 = "0" * 64
    metadata = Metadata(
        name="green",
        variant="tiny",
        channels=(8, 16, 24, 32),
        preprocessing=Preprocessing(rule="squeeze_antialias", size=(48, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
        threshold=0.5,
    )

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        return prepared(pixels, self.metadata)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        blurred = np.stack([cv2.blur(image[1], (3, 3)) for image in images])
        return (1 / (1 + np.exp(-4 * blurred))).astype(np.float32)


@pytest.fixture
def engine() -> GreenEngine:
    return GreenEngine()


def green_disc(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A picture (h, w, 3) uint8 RGB: a green disc on a dark noisy ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
    y, x = np.indices(size)
    centre = rng.uniform(0.3, 0.7, 2) * size
    pixels[np.hypot(y - centre[0], x - centre[1]) < min(size) * rng.uniform(0.15, 0.3)] = (20, 230, 40)
    return pixels


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels[:, :, ::-1])[1].tobytes())


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
            items.append(Item(path, path.name, path.stem))
        return Found(tuple(items))

    return make
