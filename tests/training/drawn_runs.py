"""Drawn data sets for training, and a run without the command around it; scripts use them too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.split import SplitRule
from ascseg_cli.training.files import RunFolder
from ascseg_cli.training.fit import Fit
from ascseg_cli.training.log import Row
from ascseg_cli.training.material import prepare, settle
from ascseg_cli.training.run import Outcome, Run

CPU = torch.device("cpu")
TINY = {"size": 16, "drawn_size": 20, "batch": 4, "checks": 1, "averaging": 0.5, "backend": "reference"}


@dataclass
class Watcher:
    """Keeps what a run says."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    taught: int = 0

    def teach(self, step: int, steps: int, loss: float) -> None:
        self.taught += 1

    def step(self, fit: Fit) -> None:
        self.steps.append(fit.place.step)

    def check(self, row: Row) -> None:
        self.rows.append(row)

    def say(self, kind: str, text: str) -> None:
        self.lines.append((kind, text))


def draw_folder(root: Path, images: int = 30) -> Path:
    """Red discs on spotted skin; images whose names fall into the test part are no images at all."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(images):
        image, mask = root / "images" / f"i{i}.png", root / "masks" / f"i{i}.png"
        if SplitRule().part(image.stem) == "test":
            image.write_bytes(b"never trained on")
            mask.write_bytes(b"never read")
            continue
        x, y, r = [*rng.integers(12, 36, 2).tolist(), int(rng.integers(6, 12))]
        # On even ground the check for copies would take one disc for another.
        spots = rng.integers(-12, 12, (6, 6, 1)) + np.array([220, 180, 160])
        skin = Image.fromarray(spots.astype(np.uint8)).resize((48, 44), Image.Resampling.BICUBIC)
        for path, canvas, colour in ((image, skin, (150, 40, 40)), (mask, Image.new("L", (48, 44)), 255)):
            ImageDraw.Draw(canvas).ellipse((x - r, y - r, x + r, y + r), fill=colour)
            canvas.save(path)
    assert min(open_dataset(root).split().counts().values()) > 0
    return root


def train(
    data: Path, output: Path, watch: Watcher | None = None, *, resume: bool = False, **given: object
) -> Outcome:
    """A whole run as the command makes it, in this process."""
    watch = watch or Watcher()
    settings = settle({**({} if resume else TINY), "data": str(data), **given}, RunFolder(output), resume=resume)
    return Run(prepare(settings, CPU, watch.say), settings, RunFolder(output), CPU, watch)()
