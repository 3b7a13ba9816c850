"""Whether evaluation's memory stays flat over 100,000 pairs: the resident memory beside the pairs scored.

    PYTHONPATH=. python tests/long/flat_memory.py [PAIRS]      default 100,000: some minutes; makes its own masks

Masks of 32×32 px in a temporary folder, a few hundred different ones; `ascseg evaluate --json --csv` over them in
a process of its own. What it prints stands in docs/robustness.md. Fails where the peak with all pairs is 50 MB
or more above that with a tenth of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

KINDS, SIDE, ALLOWED = 300, 32, 50


def make(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    files = []
    for i in range(KINDS):
        mask = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 4) > (9 if i % 50 == 0 else 0.02)
        files.append(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())
    for side, step in (("pred", 1), ("truth", 7)):
        for i in range(count):
            path = folder / side / f"{i // 1000:03}" / f"image_{i:06}.png"
            if i % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(files[(i * step) % KINDS])


def resident(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Resident memory now and at its peak, MB; 0 after the end."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith("Vm")}
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def run(folder: Path, count: int) -> int:
    """The peak of one evaluation, MB; prints the curve."""
    command = [sys.executable, "-m", "ascseg_cli", "evaluate", "--pred", str(folder / "pred")]
    command += ["--truth", str(folder / "truth"), "--json", "--csv", str(folder / "rows.csv"), "-q"]
    started, peak, next_at = time.monotonic(), 0, 0.0
    with open(folder / "out.json", "wb") as out, subprocess.Popen(command, stdout=out) as process:
        while process.poll() is None:
            now, highest = resident(process)
            peak = max(peak, highest)
            if (elapsed := time.monotonic() - started) >= next_at and now:
                print(f"  {elapsed:6.0f} s {now:6} MB", flush=True)
                next_at = max(elapsed * 1.25, next_at + 5)
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"evaluate exited with {process.returncode}")
    took = time.monotonic() - started
    with open(folder / "out.json", "rb") as file:
        images = len(json.load(file)["images"])
    assert images == count, f"{images} of {count} images in the JSON"
    print(f"{count:,} pairs: peak {peak} MB, {took:.0f} s, {60 * count / took:,.0f} pairs a minute", flush=True)
    return peak


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    peaks = []
    for some in (count // 10, count):
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), some)
            peaks.append(run(Path(name), some))
    grown = peaks[1] - peaks[0]
    each = grown * 2**20 / (count - count // 10)
    print(f"{grown} MB more, {each:,.0f} bytes a pair; {os.cpu_count()} processors")
    if grown >= ALLOWED:
        raise SystemExit(f"{ALLOWED} MB or more: something grows")


if __name__ == "__main__":
    main()
