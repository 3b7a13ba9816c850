"""Masks of onnxruntime, from exported files and from weights, against torch's: the figures in docs/export.md.

    PYTHONPATH=. python tests/long/exported_masks.py [FOLDER] [IMAGES]

Minutes. FOLDER is ../shared/data by default; of each data set there so many images are taken, evenly spaced, 40 by
default. onnxruntime runs the exported file and the weights themselves; torch runs them with the compiled kernels.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli import Segmenter
from ascseg_cli.cli import run
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.inference.segmenter import Segmentation

SETS = {"BUSI": "busi", "PH2": "ph2", "Kvasir": "kvasir", "ISIC2017": "isic2017", "ISIC2018": "isic2018"}


@dataclass
class Difference:
    """What images add up to: the largest difference of probabilities, the sum of their means, mask pixels."""

    largest: float = 0.0
    means: float = 0.0
    images: int = 0
    changed: int = 0
    pixels: int = 0

    def add(self, got: Segmentation, want: Segmentation) -> None:
        off = np.abs(got.probability - want.probability)
        self.largest, self.means = max(self.largest, float(off.max())), self.means + float(off.mean())
        self.images += 1
        self.changed += int((got.mask != want.mask).sum())
        self.pixels += got.mask.size


def compare(folder: Path, name: str, count: int, target: Path) -> None:
    """Says what it finds on one data set."""
    code = run(["export", "--dataset", name, "--format", "onnx", "--output", str(target)])
    if code:
        sys.exit(code)
    torchs = Segmenter.from_pretrained(name, device="cpu", threads=1)
    others = {
        "exported file": Segmenter.from_weights(target, threads=1),
        "weights": Segmenter.from_pretrained(name, backend="onnxruntime", threads=1),
    }
    images = [pair.image for pair in open_dataset(folder).pairs]
    found = {way: Difference() for way in others}
    for image in images[:: max(1, len(images) // count)][:count]:
        picture = read_pixels(image)
        want = torchs(picture)
        for way, segmenter in others.items():
            found[way].add(segmenter(picture), want)
    for way, sums in found.items():
        print(
            f"{name}, {way}: {sums.images} images, probabilities differ by {sums.largest:.1e} at most, "
            f"{sums.means / sums.images:.1e} on the mean; {sums.changed:,} of {sums.pixels:,} mask pixels differ",
            flush=True,
        )


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[3] / "shared" / "data"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    with tempfile.TemporaryDirectory() as folder:
        for of, name in SETS.items():
            compare(data / of, name, count, Path(folder) / f"{name}.onnx")


if __name__ == "__main__":
    main()
