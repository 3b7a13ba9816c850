"""A run in a process of its own, to be killed: `python killed_run.py PHOTOS OUTPUT`. No torch: it starts fast."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from stand_in import GreenEngine

from ascseg_cli.cli.interrupt import graceful
from ascseg_cli.data.discover import discover
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.run import Run
from ascseg_cli.inference.settings import KINDS, Settings


class SlowEngine(GreenEngine):
    """Takes a few milliseconds, so that kills hit every stage."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        time.sleep(0.004)
        return super().probabilities(images)


def main() -> None:
    photos, output = map(Path, sys.argv[1:])
    outputs = OutputFolder(output)
    run = Run(
        discover([photos], output=output), SlowEngine(), Settings(threshold=0.5, save=KINDS), outputs,
        mode="resume", threads=2, arguments=[], on_result=lambda _: None, warn=print,
    )  # fmt: skip
    with graceful(run.stop, outputs.remove_temporary):
        summary = run()
    sys.exit(130 if summary.counts["skipped"] else 0)


if __name__ == "__main__":
    main()
