"""What the HTML report of `ascseg evaluate` costs: its size, and processor time and memory beside scoring alone.

    python benchmarks/report.py DATA [COUNT]      a labelled folder, its images taken again until there are COUNT

Predictions are the truths moved by up to 30 px; every fiftieth is specks, the hardest to draw small. Processor
time is that of a process of its own on one thread, user and system.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from ascseg_cli.data.decode import read_mask
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.pairs import Pair


def lay_out(pairs: Sequence[Pair], folder: Path, count: int) -> None:
    """pred/, truth/ and images/ of `count` images."""
    random = np.random.default_rng(0)
    for side in ("pred", "truth", "images"):
        (folder / side).mkdir()
    for i, pair in enumerate(islice(cycle(pairs), count)):
        truth = read_mask(pair.masks[0])
        pred = np.roll(truth, random.integers(-30, 31, 2), (0, 1))
        if i % 50 == 0:
            pred = cv2.medianBlur((random.random(truth.shape) < 0.2).astype(np.uint8), 5) > 0
        cv2.imwrite(str(folder / f"pred/{i}.png"), pred.astype(np.uint8) * 255)
        (folder / f"truth/{i}{pair.masks[0].suffix}").symlink_to(pair.masks[0].resolve())
        (folder / f"images/{i}{pair.image.suffix}").symlink_to(pair.image.resolve())


def measure(folder: Path, options: Sequence[str]) -> tuple[float, float]:
    """Seconds of the processor and megabytes of memory at most."""
    command = [sys.executable, "-m", "ascseg_cli", "evaluate", "--pred", "pred", "--truth", "truth", "-q"]
    process = subprocess.Popen([*command, "--threads", "1", *options], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{options}: status {status}"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure scoring alone, with a report of masks, and with one of photographs."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(open_dataset(Path(sys.argv[1])).pairs, folder, count)
        report = ["--report", "report.html"]
        ways = {"scores alone": [], "report": report, "report, photographs": [*report, "--images", "images"]}
        print(f"{count:,} pairs{'':12}{'CPU s':>8}{'MB of memory':>14}{'MB of report':>14}")
        for words, options in ways.items():
            seconds, memory = measure(folder, options)
            page = folder / "report.html"
            size = f"{page.stat().st_size / 1e6:.1f}" if page.exists() else ""
            print(f"{words:24}{seconds:8.1f}{memory:14.0f}{size:>14}", flush=True)


if __name__ == "__main__":
    main()
