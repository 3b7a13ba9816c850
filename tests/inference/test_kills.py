"""Runs killed at any moment lose nothing: a later run completes them to what an undisturbed one writes.

A sample; `python tests/inference/test_kills.py 200` kills as often as that.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

IMAGES = 60


def draw_photos(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(IMAGES):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), (0, 0), 5)
        stretched = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)
        (folder / f"{number:02}.png").write_bytes(cv2.imencode(".png", stretched)[1].tobytes())
    (folder / "zz.png").write_bytes(b"no image")


def start(photos: Path, output: Path) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("killed_run.py")
    return subprocess.Popen([sys.executable, str(script), str(photos), str(output)], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr.decode()


def written(output: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Every file but the records, and the rows without `seconds`."""
    records = {"run.json", "journal.jsonl", "results.csv"}
    paths = (path for path in output.rglob("*") if path.is_file() and path.name not in records)
    with open(output / "results.csv", encoding="utf-8", newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}, rows


def age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_often(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs until `kills` have hit; returns how many did so amid the images, and how many rounds it took."""
    photos = folder / "photos"
    draw_photos(photos)
    finish(start(photos, folder / "whole"))
    want = written(folder / "whole")
    assert len(want[0]) == 4 * IMAGES
    chance = random.Random(seed)
    hit = amid = rounds = 0
    while hit < kills:
        rounds += 1
        output = folder / f"round{rounds}"
        while hit < kills:
            before = age(output / "run.json")
            process = start(photos, output)
            while process.poll() is None and age(output / "run.json") == before:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.25))
            ended = process.poll() is not None
            process.kill()
            process.communicate()
            if ended:
                break
            hit += 1
            amid += 0 < len(list(output.glob("masks/*.png"))) < IMAGES
        finish(start(photos, output))
        got = written(output)
        assert got[1] == want[1]
        assert got[0].keys() == want[0].keys(), "files too many or too few; a temporary one is left"
        assert got[0] == want[0]
    return amid, rounds


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_runs_are_completed_to_the_same_bytes(tmp_path: Path) -> None:
    amid, _ = kill_often(tmp_path, kills=6, seed=1)
    assert amid >= 2


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        amid_, rounds_ = kill_often(Path(root), int(sys.argv[1]), seed=int(time.time()))
    sys.stdout.write(f"{sys.argv[1]} kills, {amid_} of them amid the images, in {rounds_} rounds: nothing lost\n")
