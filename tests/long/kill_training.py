"""Training killed at random moments, again and again, and completed each time to the same weights, to the bit:

    python tests/long/kill_training.py 100

Each kill is a SIGKILL to `ascseg train` on drawn images, with a checkpoint after every step.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from drawn_runs import draw_folder
from killed_training import kill_often

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        data = draw_folder(Path(root) / "discs")
        amid = kill_often(data, Path(root), int(sys.argv[1]), seed=int(time.time()))
    print(f"{sys.argv[1]} kills, {amid} of them amid the steps: the same weights each time")
