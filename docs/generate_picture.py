"""Makes the picture of README.md: the example images above the overlays that `ascseg predict` writes for them.

python docs/generate_picture.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "examples.jpg"
SHOWN = {"polyps": "kvasir", "ultrasound": "busi"}
HEIGHT, GAP = 210, 6


def predict(folder: str, dataset: str, output: Path) -> list[tuple[Path, Path]]:
    """Run the command on one folder of examples; returns each image with its overlay."""
    source = ROOT / "examples" / folder
    command = ["predict", str(source), "--dataset", dataset, "--output", str(output / folder)]
    subprocess.run([sys.executable, "-m", "ascseg_cli", *command], cwd=ROOT, check=True)
    images = sorted(path for path in source.iterdir() if path.suffix in (".jpg", ".png"))
    return [(path, output / folder / "overlays" / f"{path.stem}.png") for path in images]


def montage(pairs: list[tuple[Path, Path]]) -> Image.Image:
    """Images in the upper row, overlays below them."""
    columns = [[scaled(path) for path in pair] for pair in pairs]
    width = sum(column[0].width for column in columns) + GAP * (len(columns) - 1)
    sheet = Image.new("RGB", (width, 2 * HEIGHT + GAP), "white")
    x = 0
    for above, below in columns:
        sheet.paste(above, (x, 0))
        sheet.paste(below, (x, HEIGHT + GAP))
        x += above.width + GAP
    return sheet


def scaled(path: Path) -> Image.Image:
    with Image.open(path) as image:
        width = round(image.width * HEIGHT / image.height)
        return image.convert("RGB").resize((width, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = [pair for name, dataset in SHOWN.items() for pair in predict(name, dataset, Path(folder))]
        PICTURE.parent.mkdir(exist_ok=True)
        montage(found).save(PICTURE, quality=88)
