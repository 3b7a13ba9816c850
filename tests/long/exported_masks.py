"""Masks of exported files against those of the weights they were made from: the figures in docs/export.md.

    PYTHONPATH=. python tests/long/exported_masks.py [FOLDER] [IMAGES]

Minutes. FOLDER is ../shared/data by default; of each data set there so many images are taken, evenly spaced, 40 by
default. The file runs in onnxruntime on one thread, the weights in torch with the compiled kernels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from ascseg_cli import Segmenter
from ascseg_cli.cli import run
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.layouts import open_dataset

SETS = {"BUSI": "busi", "PH2": "ph2", "Kvasir": "kvasir", "ISIC2017": "isic2017", "ISIC2018": "isic2018"}


def compare(folder: Path, name: str, count: int, target: Path) -> tuple[int, int]:
    """Changed pixels and all pixels; says what it finds."""
    code = run(["export", "--dataset", name, "--format", "onnx", "--output", str(target)])
    if code:
        sys.exit(code)
    exported = Segmenter.from_weights(target, threads=1)
    weights = Segmenter.from_pretrained(name, device="cpu", threads=1)
    images = [pair.image for pair in open_dataset(folder).pairs]
    images = images[:: max(1, len(images) // count)][:count]
    changed = pixels = 0
    most, total = 0.0, 0.0
    for image in images:
        picture = read_pixels(image)
        got, want = exported(picture), weights(picture)
        difference = np.abs(got.probability - want.probability)
        most, total = max(most, float(difference.max())), total + float(difference.mean())
        changed += int((got.mask != want.mask).sum())
        pixels += got.mask.size
    mean = total / len(images)
    print(
        f"{name}: {len(images)} images, probabilities differ by {most:.1e} at most, {mean:.1e} on the mean; "
        f"{changed:,} of {pixels:,} mask pixels differ",
        flush=True,
    )
    return changed, pixels


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[3] / "shared" / "data"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    with tempfile.TemporaryDirectory() as folder:
        found = [compare(data / of, name, count, Path(folder) / f"{name}.onnx") for of, name in SETS.items()]
    changed, pixels = map(sum, zip(*found))
    print(f"all: {changed:,} of {pixels:,} mask pixels differ")


if __name__ == "__main__":
    main()
