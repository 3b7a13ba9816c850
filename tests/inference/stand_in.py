"""Stand-ins for the network, so that tests of everything around it take milliseconds; and drawn pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ascseg_cli.inference.tta import prepared
from ascseg_cli.network.metadata import Metadata, Preprocessing


class StandIn:
    """All of an engine but the network."""

    backend, backend_note, device, first_wait = "reference", "", "cpu", ""
    takes_several = takes_pixels = False
    weights_sha256 = "0" * 64
    metadata: Metadata

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        return prepared(pixels, self.metadata)


class GreenEngine(StandIn):
    """Probability = how green the (blurred) image is; notes the batches that it was given."""

    metadata = Metadata(
        name="green",
        variant="tiny",
        channels=(8, 16, 24, 32),
        preprocessing=Preprocessing(rule="squeeze_antialias", size=(48, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
        threshold=0.5,
    )

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        blurred = np.stack([cv2.blur(image[1], (3, 3)) for image in images])
        return (1 / (1 + np.exp(-4 * blurred))).astype(np.float32)


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
