"""`ascseg train` on two GPUs against one: the same steps, a killed process, and how long a step takes.

    python tests/long/several_gpus.py [DEVICES]

Float32 gradients of the whole network are ill-conditioned, so that runs part from the second step on: compared is
the loss of the first, to one part in ten thousand, without TF32, and that both end well. The exact proof is in
float64 on the CPU (tests/training/test_several.py). Needs as many GPUs as DEVICES (2).
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from drawn_runs import draw_folder

SETTINGS = ["--size", "256", "--batch", "8", "--set", "save_minutes=0.02"]


def start(data: Path, output: Path, devices: int, steps: int, *, tf32: bool = True) -> subprocess.Popen[str]:
    """A run on so many GPUs."""
    environment = os.environ | ({} if tf32 else {"NVIDIA_TF32_OVERRIDE": "0"})
    command = [sys.executable, "-m", "ascseg_cli", "train", "--data", str(data), "-o", str(output), "--resume"]
    command += [*SETTINGS, "--steps", str(steps), "--device", "cuda", "--devices", str(devices)]
    command += ["--set", f"checks={min(steps, 3)}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said; it must end with that code."""
    words = process.communicate(timeout=400)[1]
    print(words, end="")
    assert process.returncode == code, f"exit code {process.returncode}, not {code}"
    return words


def rows(output: Path) -> list[dict[str, str]]:
    """The rows of log.csv."""
    with (output / "log.csv").open() as file:
        return list(csv.DictReader(file))


def killed(data: Path, output: Path, devices: int) -> None:
    """Kill the last process once a checkpoint is there; the run must end by itself and go on."""
    process = start(data, output, devices, 90)
    while not list(output.glob("checkpoint-*.safetensors")):
        assert process.poll() is None, ended(process, 3)
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert "ended by signal 9" in ended(process, 3)
    assert "going on after step" in ended(start(data, output, devices, 90), 0)


def main(devices: int) -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = draw_folder(root / "discs", 60)
        for count in (1, devices):
            ended(start(data, root / f"on{count}", count, 3, tf32=False), 0)
        one, several = (float(rows(root / f"on{count}")[0]["loss"]) for count in (1, devices))
        print(f"loss of the first step: {one:.6f} on one, {several:.6f} on {devices}")
        assert abs(one - several) < 1e-4 * one
        for count in (1, devices):
            ended(start(data, root / f"long{count}", count, 150), 0)
            print(f"on {count}: {rows(root / f'long{count}')[-1]['images_per_second']} images/s")
        killed(data, root / "killed", devices)
    print(f"{devices} GPUs: as one, and a killed process ends the run, which goes on")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
