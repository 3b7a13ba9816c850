"""What `ascseg predict` keeps of its network's throughput on 1024×768 JPEGs, and where the rest goes.

    python benchmarks/throughput.py --threads 2

In turns: the bare network over pictures prepared in memory, in a loop, each pass on all threads; the same, as many
passes at once as predict runs; then whole runs from files to masks, and to masks and overlays. Wall seconds and
processor seconds (decoders' included) an image; where other processes want the cores too, the latter say more.
Then the parts of one image's way, one after another.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ascseg_cli.inference.threads import shorten_waits

shorten_waits()  # as the command does, before torch is loaded

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from ascseg_cli.data.decode import read_pixels  # noqa: E402
from ascseg_cli.data.decoders import Decoders  # noqa: E402
from ascseg_cli.data.discover import Found, Item  # noqa: E402
from ascseg_cli.data.preprocess import resize_probability  # noqa: E402
from ascseg_cli.inference import overlay  # noqa: E402
from ascseg_cli.inference.engine import Engine, open_engine  # noqa: E402
from ascseg_cli.inference.outputs import OutputFolder, mask_png, picture_png  # noqa: E402
from ascseg_cli.inference.postprocess import binarise, measure  # noqa: E402
from ascseg_cli.inference.run import Run  # noqa: E402
from ascseg_cli.inference.settings import Settings  # noqa: E402
from ascseg_cli.inference.tta import prepared  # noqa: E402
from ascseg_cli.weights.store import locate  # noqa: E402

LOOP = "bare network, in a loop"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "polyps"


def draw(folder: Path, count: int) -> Found:
    """JPEGs of 1024×768 px, made from the drawn polyps of `examples/`."""
    folder.mkdir()
    drawn = [cv2.imread(str(path)) for path in sorted(EXAMPLES.glob("*.jpg"))]
    items = []
    for number in range(count):
        pixels = cv2.resize(drawn[number % len(drawn)], (1024, 768), interpolation=cv2.INTER_CUBIC)
        path = folder / f"{number:03}.jpg"
        path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        items.append(Item(str(path), path.name, path.stem))
    return Found(tuple(items))


def loop(engine: Engine, inputs: list[np.ndarray]) -> None:
    """The network alone, one image after another."""
    for image in inputs:
        engine.probabilities(image[None])


def at_once(engine: Engine, inputs: list[np.ndarray], threads: int) -> None:
    """The network alone, with as many images at once as the pipeline has."""
    with engine.shared(threads) as begin, ThreadPoolExecutor(threads, initializer=begin) as workers:
        list(workers.map(lambda image: engine.probabilities(image[None]), inputs))


def predict(engine: Engine, found: Found, threads: int, save: tuple[str, ...], decoders: Decoders) -> None:
    """A whole run; its decoders are ready, since the command starts them while it loads the network."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            found, engine, Settings(0.5, save=save), OutputFolder(Path(folder) / "out"),
            mode="new", threads=threads, arguments=[],
            on_result=lambda _: None, warn=lambda _: None, decoders=decoders,
        )  # fmt: skip
        summary = run()
        assert summary.counts["ok"] + summary.counts["empty"] == len(found.items)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds, those of ended children included."""
    wall, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - wall, sum(os.times()[:4]) - before


def parts(engine: Engine, found: Found) -> Iterator[tuple[str, float]]:
    """The least milliseconds of each step of one image, alone in one thread."""
    torch.set_num_threads(1)
    content = found.items[0].path.read_bytes()
    pixels = read_pixels(content)
    image = prepared(pixels, engine.metadata)
    small = engine.probabilities(image[None])[0]
    probability = resize_probability(small, pixels.shape[:2])
    mask = binarise(probability, 0.5, Settings(0.5).cleaning)
    tinted = overlay.draw(pixels, mask)
    with Decoders() as decoders:
        steps: list[tuple[str, Callable[[], object]]] = [
            ("read and hash the file", lambda: hashlib.sha256(found.items[0].path.read_bytes()).hexdigest()),
            ("decode in this process", lambda: read_pixels(content)),
            ("decode in its own process", lambda: decoders.read_pixels(content, name="a")),
            ("scale for the network", lambda: prepared(pixels, engine.metadata)),
            ("network", lambda: engine.probabilities(image[None])),
            ("scale back, threshold, measure", lambda: measure(mask, resize_probability(small, mask.shape))),
            ("encode the mask", lambda: mask_png(mask)),
            ("draw the overlay", lambda: overlay.draw(pixels, mask)),
            ("encode the overlay", lambda: picture_png(tinted)),
        ]
        for name, step in steps:
            yield name, 1000 * min(timed(step)[0] for _ in range(15))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = open_engine(locate("kvasir", None), device="cpu", threads=arguments.threads)
    with tempfile.TemporaryDirectory() as root, Decoders() as decoders:
        decoders.start(arguments.threads)
        found = draw(Path(root) / "photos", arguments.images)
        inputs = [prepared(read_pixels(item.path), engine.metadata) for item in found.items]
        ways: dict[str, Callable[[], None]] = {
            LOOP: lambda: loop(engine, inputs),
            "bare network, as predict": lambda: at_once(engine, inputs, arguments.threads),
            "predict, masks": lambda: predict(engine, found, arguments.threads, ("masks",), decoders),
            "predict, masks and overlays": lambda: predict(
                engine, found, arguments.threads, ("masks", "overlays"), decoders
            ),
        }
        for way in ways.values():  # once, untimed
            way()
        rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(arguments.rounds)]
        print(
            f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
        )
        print(f"{arguments.images} JPEGs of 1024×768 px, {arguments.rounds} rounds in turns")
        for name in ways:
            walls, cpus = zip(*(one[name] for one in rounds))
            kept = [statistics.median(one[LOOP][i] / one[name][i] for one in rounds) for i in (0, 1)]
            speed = arguments.images / statistics.median(walls)
            work = 1000 * statistics.median(cpus) / arguments.images
            print(
                f"{name:28} {speed:6.2f} images/s {work:6.1f} ms of processors an image;"
                f" {kept[0]:4.0%} of the loop's speed by the wall, {kept[1]:4.0%} by processor time"
            )
        for name, milliseconds in parts(engine, found):
            print(f"{name:32} {milliseconds:7.2f} ms")


if __name__ == "__main__":
    main()
