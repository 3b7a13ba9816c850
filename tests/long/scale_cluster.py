"""How a run spreads over 1, 2, 4 and 8 workers: python tests/long/scale_cluster.py [IMAGES]

The network is a stand-in that takes 50 ms an image and sleeps in that time, so that eight workers fit on two cores
and what is measured is ours: dividing, Ray, reading, writing, recording. Two minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ascseg_cli.cluster import crew as leader
from ascseg_cli.cluster.connection import _MEMORY, _load
from ascseg_cli.cluster.worker import Introduction, Job, Worker
from ascseg_cli.data.discover import discover
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.run import Run
from ascseg_cli.inference.settings import Settings
from ascseg_cli.inference.tta import prepared
from ascseg_cli.network.metadata import Metadata, Preprocessing

SECONDS = 0.05
METADATA = Metadata(
    name="stand-in",
    variant="tiny",
    channels=(8, 16, 24, 32),
    preprocessing=Preprocessing(rule="squeeze_antialias", size=(48, 64), mean=(0.5,) * 3, std=(0.25,) * 3),
    threshold=0.5,
)


class Sleeper:
    """An engine that sleeps."""

    metadata, weights_sha256, backend, backend_note, device = METADATA, "0" * 64, "reference", "", "cpu"
    takes_several, takes_pixels, first_wait = False, False, ""

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        return prepared(pixels, self.metadata)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        time.sleep(SECONDS * len(images))
        return (images[:, 1] > 0).astype(np.float32)

    def shared(self, parts: int) -> Any:
        return contextlib.nullcontext(lambda: None)


class StandIn(Worker):
    """A worker whose network sleeps."""

    def introduce(self, job: Job) -> Introduction:
        told = super().introduce(job)
        assert isinstance(told, Introduction)
        return told

    @property
    def _engine(self) -> Any:  # type: ignore[override]
        return Sleeper()


def draw(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
        (folder / f"{number:05}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def images_a_second(ray: Any, workers: int, photos: Path, output: Path) -> float:
    """From the first result to the last: starting workers isn't counted."""
    settings = Settings(threshold=0.5, save=("masks",))
    job = Job(b"", "stand-in", settings, output, "cpu", "reference", 1, resume=False)
    hands = [leader._Hand(ray.remote(StandIn).options(num_cpus=1).remote()) for _ in range(workers)]
    crew = leader.Crew(ray, hands, job, print)
    while not all(hand.ready for hand in hands):
        crew._wait()
    times: list[float] = []
    started = time.monotonic()
    Run(
        discover([photos], output=output), crew, settings, OutputFolder(output),
        mode="new", threads=1, arguments=[], on_result=lambda result: times.append(time.monotonic()), warn=print,
    )()  # fmt: skip
    for hand in hands:
        ray.kill(hand.handle)
    return len(times) / (times[-1] - started)


def digests(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.png")):
        yield f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    ray = _load()
    ray.init(
        address="local", num_cpus=8, include_dashboard=False, object_store_memory=_MEMORY, log_to_driver=False
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "photos", count)
        seen, alone = set(), 0.0
        for workers in (1, 2, 4, 8):
            speed = images_a_second(ray, workers, folder / "photos", folder / f"out{workers}")
            alone = alone or speed
            seen.add("\n".join(digests(folder / f"out{workers}")))
            print(f"{workers} workers: {speed:6.1f} images/s, {speed / alone / workers:4.0%} of {workers} × one's")
        assert len(seen) == 1, "the masks differ"
    ray.shutdown()


if __name__ == "__main__":
    main()
