"""Long runs stay flat: memory, open files, threads and decoder processes, over a hundred thousand images.

    python tests/long/many_images.py --count 100000             a stand-in of one layer for the network
    python tests/long/many_images.py --count 2000 --real        the shipped weights
    python tests/long/many_images.py --large 10000              one image of 10,000×10,000 px, by the command

Prints a line each twentieth of the run: images done, memory of this process and of its decoders, open files,
threads. Fails if, from the first tenth on, memory grows by 50 MB or more, or files or threads by any; if progress
takes 1 % of the time or more; or if a row or mask is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ascseg_cli.cli.progress import RunProgress
from ascseg_cli.data.discover import discover
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.run import Run
from ascseg_cli.inference.settings import Settings
from ascseg_cli.network.metadata import Metadata, Preprocessing

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "inference"))

from stand_in import StandIn

SUFFIXES = (".jpg", ".png", ".bmp", ".tif", ".webp")
KINDS = 200  # different pictures; the rest are links to them


class OneLayer(StandIn):
    """A stand-in for the network: one convolution."""

    metadata = Metadata(
        name="one layer",
        variant="tiny",
        channels=(8, 16, 24, 32),
        preprocessing=Preprocessing(rule="squeeze_antialias", size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3),
    )

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        kernel = np.full((3, 3), 1 / 9, np.float32)
        blurred = np.stack([cv2.filter2D(image[1], -1, kernel) for image in images])
        return (1 / (1 + np.exp(-4 * blurred))).astype(np.float32)


def draw(folder: Path, count: int) -> None:
    """`count` small pictures in all formats, a thousand a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number // 1000:03}"
        if number < KINDS:
            place.mkdir(parents=True, exist_ok=True)
            suffix = SUFFIXES[number % len(SUFFIXES)]
            pixels = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 4)
            content = cv2.imencode(suffix, cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))[1].tobytes()
            (place / f"{number:06}{suffix}").write_bytes(content)
        else:
            first = number % KINDS
            suffix = SUFFIXES[first % len(SUFFIXES)]
            place.mkdir(exist_ok=True)
            os.link(folder / "000" / f"{first:06}{suffix}", place / f"{number:06}{suffix}")


@dataclass
class Sample:
    """What the system says of this process and its children."""

    memory: float
    decoders: float
    processes: int
    files: int
    threads: int

    @classmethod
    def taken(cls) -> Sample:
        own = Path("/proc/self")
        memory = [megabytes(pid) for pid in children(os.getpid())]
        threads = len(list((own / "task").iterdir()))
        return cls(megabytes(os.getpid()), sum(memory), len(memory), len(list((own / "fd").iterdir())), threads)


def megabytes(pid: int) -> float:
    """The memory that a process has; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


@dataclass
class Watch:
    """Takes samples as results come, and the time that progress takes.

    every  images between two samples
    """

    progress: RunProgress
    every: int
    done: int = 0
    spent: float = 0.0
    samples: list[tuple[int, Sample]] = field(default_factory=list)

    def __call__(self, result: Any) -> None:
        begin = time.perf_counter()
        self.progress.advance(failed=result.status == "failed")
        self.spent += time.perf_counter() - begin
        self.done += 1
        if self.done % self.every == 0:
            sample = Sample.taken()
            self.samples.append((self.done, sample))
            print(f"{self.done:8,} {sample}", flush=True)

    def faults(self, seconds: float) -> list[str]:
        warm = [sample for done, sample in self.samples if done > self.every]
        grown = max(s.memory + s.decoders for s in warm) - warm[0].memory - warm[0].decoders
        print(
            f"memory grew by {grown:.1f} MB; progress took {100 * self.spent / seconds:.2f} % of {seconds:.0f} s"
        )
        faults = [f"memory grew by {grown:.0f} MB"] if grown >= 50 else []
        for name, in_flight in (("files", 4), ("threads", 0), ("processes", 0)):
            if max(getattr(s, name) for s in warm) > getattr(warm[0], name) + in_flight:
                faults.append(f"{name} grew: {[getattr(s, name) for s in warm]}")
        return faults + (["progress is dear"] if self.spent >= 0.01 * seconds else [])


def many(count: int, *, real: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as root:
        photos, output = Path(root) / "photos", Path(root) / "out"
        draw(photos, count)
        found = discover([photos], output=output)
        assert len(found.items) == count
        with RunProgress(count) as progress:
            watch = Watch(progress, max(1, count // 20))
            begin = time.perf_counter()
            engine = _real_engine() if real else OneLayer()
            run = Run(
                found, engine, Settings(0.5, save=("masks",)), OutputFolder(output),
                mode="new", threads=2, arguments=[], on_result=watch, warn=print,
            )  # fmt: skip
            summary = run()
            seconds = time.perf_counter() - begin
        print(f"{count:,} images in {seconds:.0f} s, {count / seconds:.0f} images/s")
        rows = (output / "results.csv").read_bytes().count(b"\r\n") - 1
        masks = sum(1 for _ in (output / "masks").rglob("*.png"))
        good = summary.counts["ok"] + summary.counts["empty"]
        lost = [] if rows == masks == good == count else [f"{rows} rows, {masks} masks, {good} done of {count}"]
        return lost + watch.faults(seconds)


def _real_engine() -> Any:
    from ascseg_cli.inference.engine import open_engine
    from ascseg_cli.weights.store import locate

    return open_engine(locate("kvasir", None), device="cpu", threads=2)


def large(side: int) -> list[str]:
    """One image of side × side px by the command; its largest memory, with its decoder's."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "large.jpg"
        noise = np.random.default_rng(0).integers(0, 256, (side // 100, side // 100, 3), dtype=np.uint8)
        content = cv2.imencode(".jpg", cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC))[1]
        path.write_bytes(content.tobytes())
        command = [sys.executable, "-m", "ascseg_cli", "predict", str(path), "--dataset", "kvasir"]
        begin = time.perf_counter()
        run = subprocess.Popen([*command, "--output", f"{root}/out"])
        most = 0.0
        while run.poll() is None:
            most = max(most, sum(map(megabytes, [run.pid, *children(run.pid)])))
            time.sleep(0.02)
        seconds = time.perf_counter() - begin
        print(f"{side:,}×{side:,} px: {seconds:.1f} s, at most {most:.0f} MB")
        mask = cv2.imread(f"{root}/out/masks/large.png", cv2.IMREAD_UNCHANGED)
        return [] if run.returncode == 0 and mask.shape == (side, side) else ["the large image failed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--large", type=int, metavar="SIDE")
    arguments = parser.parse_args()
    faults = large(arguments.large) if arguments.large else many(arguments.count, real=arguments.real)
    print("\n".join(f"FAULT {fault}" for fault in faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
