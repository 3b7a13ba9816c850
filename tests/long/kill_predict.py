"""Runs of `ascseg predict` ended at any moment lose nothing: they are completed to what an undisturbed one writes.

    python tests/long/kill_predict.py --count 200 --seed 1

Ends are SIGKILL, SIGHUP, SIGINT and SIGTERM, the latter two once or twice, at random moments from the process's
start on, most of them amid the images. Compared are every mask, overlay, probability map and polygon to the last
byte, the rows of results.csv but for `seconds`, their order, and that no other file is left.
`tests/inference/test_kills.py` runs a sample of it with a stand-in for the network.
"""

from __future__ import annotations

import argparse
import csv
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

Command = Callable[[Path], list[str]]  # the command line that writes into a folder, and goes on there
RECORDS = {"run.json", "journal.jsonl", "results.csv"}
SUFFIXES = (".jpg", ".png", ".bmp", ".tif", ".webp")


def draw_photos(folder: Path, count: int) -> None:
    """`count` pictures in all formats, and one file that is none."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(count):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), (0, 0), 5)
        stretched = cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)
        suffix = SUFFIXES[number % len(SUFFIXES)]
        (folder / f"{number:02}{suffix}").write_bytes(cv2.imencode(suffix, stretched)[1].tobytes())
    (folder / "zz.png").write_bytes(b"no image")


def written(output: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Every file but the records, and the rows without `seconds`."""
    paths = (path for path in output.rglob("*") if path.is_file() and path.name not in RECORDS)
    with open(output / "results.csv", encoding="utf-8", newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}, rows


@dataclass
class Tally:
    """What came of all kills.

    kinds   the ends, by name
    amid    how many hit when some images were done and some weren't
    rounds  how many output folders were completed and compared
    """

    kinds: Counter[str] = field(default_factory=Counter)
    amid: int = 0
    rounds: int = 0

    @property
    def hit(self) -> int:
        return sum(self.kinds.values())


class Killer:
    """Ends runs of a command over `count` images and compares what later ones make of it.

    seconds  that such a command takes to begin
    """

    def __init__(self, command: Command, folder: Path, count: int, *, seed: int, seconds: float) -> None:
        self._command, self._folder, self._count, self._seconds = command, folder, count, seconds
        self._chance = random.Random(seed)
        self.tally = Tally()

    def __call__(self, kills: int) -> Tally:
        self._finish(self._folder / "whole")
        want = written(self._folder / "whole")
        assert len(want[0]) == 4 * self._count
        while self.tally.hit < kills:
            output = self._folder / f"round{self.tally.rounds}"
            while self.tally.hit < kills and self._kill(output) and self._chance.random() < 0.8:
                pass
            self._finish(output)
            self.tally.rounds += 1
            got = written(output)
            assert got[1] == want[1], f"{output}: rows differ"
            assert got[0].keys() == want[0].keys(), f"{output}: files too many or too few, or a temporary one"
            differing = [name for name, content in want[0].items() if got[0][name] != content]
            assert not differing, f"{output}: other bytes in {', '.join(differing)}"
        return self.tally

    def _start(self, output: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command(output), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def _finish(self, output: Path) -> None:
        process = self._start(output)
        _, stderr = process.communicate(timeout=300)
        assert process.returncode in (0, 1), stderr.decode()  # 1: the file that is no picture

    def _kill(self, output: Path) -> bool:
        """End one run at a random moment; False where it was over before."""
        before = lines(output)
        process = self._start(output)
        if self._chance.random() < 0.25:
            time.sleep(self._chance.uniform(0, self._seconds))
        else:
            wanted = before + self._chance.randrange(max(1, self._count - before))
            while process.poll() is None and lines(output) <= wanted:
                time.sleep(0.001)
            time.sleep(self._chance.uniform(0, 0.03))
        if process.poll() is not None:
            process.communicate()
            return False
        self._end(process)
        self.tally.amid += 0 < len(list(output.glob("masks/*.png"))) < self._count
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        number, twice = self._chance.choice(
            [(signal.SIGKILL, False), (signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False),
             (signal.SIGTERM, True), (signal.SIGHUP, False)]
        )  # fmt: skip
        process.send_signal(number)
        if twice:
            time.sleep(self._chance.uniform(0, 0.05))
            process.send_signal(number)
        _, stderr = process.communicate(timeout=300)
        self.tally.kinds[number.name + " twice" * twice] += 1
        if number is not signal.SIGKILL and b"interrupted: " in stderr:
            # A second one may come when Python is about to exit with 130: handled as Ctrl-C, or by the system.
            allowed = (130, -number, -signal.SIGINT) if twice else (130,)
            assert process.returncode in allowed, (number, twice, process.returncode, stderr.decode())
        # Before our own first line has run, only Python can answer Ctrl-C.
        assert b"Traceback" not in stderr or b"ascseg_cli/inference" not in stderr, stderr.decode()


def lines(output: Path) -> int:
    """How many images the journal has so far."""
    try:
        return (output / "journal.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=25)
    parser.add_argument("--stand-in", action="store_true", help="in place of the network, without torch")
    arguments = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else its runs, too, are under nohup
    with tempfile.TemporaryDirectory() as root:
        photos = Path(root) / "photos"
        draw_photos(photos, arguments.images)

        def command(output: Path) -> list[str]:
            if arguments.stand_in:
                script = Path(__file__).resolve().parents[1] / "inference" / "killed_run.py"
                return [sys.executable, str(script), str(photos), str(output)]
            kinds = "masks,overlays,probabilities,polygons"
            wanted = ["--dataset", "kvasir", "--output", str(output), "--save", kinds, "--threads", "2"]
            return [sys.executable, "-m", "ascseg_cli", "predict", str(photos), *wanted, "--resume"]

        begin = time.monotonic()
        killer = Killer(
            command, Path(root), arguments.images, seed=arguments.seed, seconds=1 if arguments.stand_in else 4
        )
        try:
            killer(arguments.count)
        finally:
            tally = killer.tally
            print(f"{tally.hit} kills, {tally.amid} amid the images, {tally.rounds} folders compared,")
            print(f"{time.monotonic() - begin:.0f} s; {dict(tally.kinds)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
