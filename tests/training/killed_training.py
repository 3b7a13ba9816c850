"""Training processes to be killed, by a test and by tests/long/kill_training.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import ascseg_cli
from ascseg_cli.network import checkpoint

STEPS = 6
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(Path(ascseg_cli.__file__).parents[1])
}  # fmt: skip


def start(data: Path, output: Path, steps: int = STEPS) -> subprocess.Popen[bytes]:
    """`ascseg train` on drawn images, with a checkpoint after every step."""
    words = ["--data", str(data), "-o", str(output), "--resume", "--size", "16", "--batch", "4"]
    settings = [
        f"steps={steps}",
        "checks=2",
        "averaging=0.5",
        "backend=reference",
        "save_minutes=1e-9",
    ]
    arguments = [*words, *(word for one in settings for word in ("--set", one))]
    return subprocess.Popen(
        [sys.executable, "-m", "ascseg_cli", "train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that must end well."""
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr.decode()


def same_weights(whole: Path, other: Path) -> None:
    """Both runs' weights are equal to the bit, and so is what was chosen from them."""
    a, b = (checkpoint.read(root / "weights.safetensors") for root in (whole, other))
    different = [name for name in a.tensors if not np.array_equal(a.tensors[name], b.tensors[name])]
    assert not different, f"{len(different)} tensors differ, {different[:3]}"
    assert (a.metadata.threshold, a.metadata.scores) == (b.metadata.threshold, b.metadata.scores)
    assert [path.name for path in other.iterdir() if path.name.endswith(".part")] == []


def newest(output: Path) -> str:
    """The newest checkpoint's name; empty where there is none."""
    return max((path.name for path in output.glob("checkpoint-*.safetensors")), default="")


def kill_often(data: Path, root: Path, kills: int, seed: int) -> int:
    """Kill runs until `kills` have hit, and complete each; returns how many hit between first and last step."""
    finish(start(data, root / "whole"))
    chance = random.Random(seed)
    hit = amid = rounds = 0
    while hit < kills:
        output = root / f"round{rounds}"
        rounds += 1
        while hit < kills:
            before = newest(output)
            process = start(data, output)
            while process.poll() is None and newest(output) == before:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.6))
            ended = process.poll() is not None
            process.kill()
            process.communicate()
            if ended:
                break
            hit += 1
            amid += newest(output) != f"checkpoint-{STEPS:07}.safetensors"
        finish(start(data, output))
        same_weights(root / "whole", output)
    return amid
