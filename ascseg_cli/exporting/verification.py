"""Tries an exported file in a fresh process, and says how close it comes to predict on real images."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli.data.preprocess import prepare
from ascseg_cli.errors import ExportError, OutputError
from ascseg_cli.exporting.comparison import LIMITS, Verdict, compared
from ascseg_cli.exporting.pictures import Picture
from ascseg_cli.graphs.form import Form
from ascseg_cli.inference.engine import Engine
from ascseg_cli.inference.threads import usable_threads
from ascseg_cli.inference.tta import predict_probability, prepared

# batch, height, width: odd, smaller and larger than the network's own size, wide and high
SIZES = ((2, 255, 257), (3, 61, 83), (1, 720, 1001), (5, 130, 17))
CORE_SIZES = ((2, 255, 257), (3, 61, 83), (5, 130, 17))  # what the network itself sees costs by the pixel


@dataclass(frozen=True)
class Case:
    """One call of the file: `images` in the form that it takes, and predict's own probability (b, h, w)."""

    what: str
    images: np.ndarray
    expected: np.ndarray


def verify(file: Path, engine: Engine, form: Form, pictures: Sequence[Picture], folder: Path) -> Verdict:
    """The verdict on an exported file, not yet checked against its limits.

    engine  what predict would run the same weights with
    folder  for the arrays that go between the processes
    Raises ExportError where the file can't be run, OutputError where the folder has no room.
    """
    cases = list((_core_cases if form.core_only else _whole_cases)(engine, form, pictures))
    with room_for_trial(folder):
        for number, case in enumerate(cases):
            np.save(folder / f"{number:04}.npy", case.images)
    runtime = _run(file, folder)
    batches = []
    for number, case in enumerate(cases):
        with np.load(folder / f"{number:04}.npz") as got:
            threshold = engine.metadata.threshold
            batches.append(compared(case.what, case.expected, threshold, got["probability"], got["mask"]))
    return Verdict(runtime, LIMITS[form.precision], batches)


@contextlib.contextmanager
def room_for_trial(folder: Path) -> Iterator[None]:
    """Raise OutputError where the block can't write into the temporary folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the file can't be tried: {folder.parent} can't be written: {error.strerror or error}",
            "free some space there, or set TMPDIR to another folder",
        ) from error


def _whole_cases(engine: Engine, form: Form, pictures: Sequence[Picture]) -> Iterator[Case]:
    """Each picture by itself, then batches of several."""
    for picture in pictures if form.static is None else ():
        yield _whole(engine, picture.name, picture.pixels[None])
    for number, (batch, h, w) in enumerate(_sizes(form)):
        chosen = [pictures[(number + i) % len(pictures)] for i in range(batch)]
        yield _whole(engine, _names(chosen), np.stack([_squeezed(p.pixels, h, w) for p in chosen]))


def _whole(engine: Engine, what: str, images: np.ndarray) -> Case:
    return Case(what, images, np.stack([predict_probability(engine, image) for image in images]))


def _core_cases(engine: Engine, form: Form, pictures: Sequence[Picture]) -> Iterator[Case]:
    """The same for the network alone: prepared images, at its own size and at others."""
    for picture in pictures if form.static is None else ():
        yield _core(engine, picture.name, prepared(picture.pixels, engine.metadata)[None])
    how = engine.metadata.preprocessing
    for number, (batch, h, w) in enumerate(_sizes(form)):
        chosen = [pictures[(number + i) % len(pictures)] for i in range(batch)]
        images = [prepare(p.pixels, rule=how.rule, size=(h, w), mean=how.mean, std=how.std) for p in chosen]
        yield _core(engine, _names(chosen), np.stack(images))


def _core(engine: Engine, what: str, images: np.ndarray) -> Case:
    h, w = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (0, -h % 16), (0, -w % 16)), mode="edge")
    return Case(what, images, engine.probabilities(padded)[:, :h, :w])


def _sizes(form: Form) -> Sequence[tuple[int, int, int]]:
    if form.static is None:
        return CORE_SIZES if form.core_only else SIZES
    return tuple((batch, *form.static) for batch in (1, 2, 3))


def _names(chosen: Sequence[Picture]) -> str:
    return chosen[0].name + (f" and {len(chosen) - 1} more" if len(chosen) > 1 else "")


def _squeezed(pixels: np.ndarray, h: int, w: int) -> np.ndarray:
    import cv2

    return cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)


def _run(file: Path, folder: Path) -> str:
    """Run the file on every array of the folder, in a fresh process; the runtime's name."""
    command = [sys.executable, "-m", f"{__package__}.trial", str(file), str(folder), str(usable_threads())]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ExportError(f"the exported file can't be run: {said[-1][:300]}; no file was written")
    facts = json.loads(done.stdout.splitlines()[-1])
    if file.suffix == ".onnx" and facts["torch_loaded"]:
        raise ExportError("the ONNX file was run in a process that had loaded torch; the trial proves nothing")
    return str(facts["runtime"])
