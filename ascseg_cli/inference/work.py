"""What is done for one image before and after the network. Everything here runs in threads, image by image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Item
from ascseg_cli.data.preprocess import resize_probability
from ascseg_cli.data.source import file_bytes
from ascseg_cli.errors import AscsegError, OutputError, StoreError
from ascseg_cli.inference import overlay, polygons
from ascseg_cli.inference.destination import Destination, Records
from ascseg_cli.inference.engine import Engine
from ascseg_cli.inference.outputs import (
    FolderError,
    geojson,
    mask_png,
    picture_png,
    place_inside,
    probability_png,
)
from ascseg_cli.inference.postprocess import binarise, measure
from ascseg_cli.inference.results import Result, failed
from ascseg_cli.inference.resume import Earlier
from ascseg_cli.inference.settings import Settings


@dataclass(frozen=True)
class Loaded:
    """An image on its way to the network.

    size           height, width in pixels
    network_input  what the engine's `prepared` gave
    pixels         (h, w, 3) uint8, only where an overlay will need them
    seconds        that reading took
    """

    size: tuple[int, int]
    network_input: np.ndarray
    pixels: np.ndarray | None
    sha256: str
    seconds: float


class Work:
    """The work on each image of one run; safe to use from several threads.

    decoders  that turn files into pixels
    watch     called with the number and the pixels (h, w, 3) uint8 of each image that is decoded
    full      the failure that ends the run, since no other image would fare better; None while all is well
    bug       the first failure that was a mistake of ours
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        outputs: Destination,
        journal: Records,
        decoders: Decoders,
        *,
        earlier: Earlier | None = None,
        watch: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        self._engine, self._settings, self._outputs, self._journal = engine, settings, outputs, journal
        self._decoders, self._earlier, self._watch = decoders, earlier, watch
        self._fingerprint = settings.fingerprint(engine.weights_sha256, engine.backend)
        self.full: OutputError | None = None
        self.bug: Exception | None = None

    def load(self, number: int, item: Item) -> Loaded | Result:
        """Image `number` of the run, ready for the network; its result where there is nothing left to do."""
        started = time.perf_counter()
        most = self._settings.max_pixels
        try:
            content = file_bytes(item.path, most)
            sha256 = hashlib.sha256(content).hexdigest()
            if self._earlier and (result := self._earlier.result(item, sha256)):
                return result
            by_name = item.path.suffix.lower() == ".dcm"
            pixels = self._decoders.read_pixels(content, name=item.name, max_pixels=most, by_name=by_name)
            if self._watch:
                self._watch(number, pixels)
            network_input = self._engine.prepared(pixels)
        except Exception as error:
            if self._earlier:
                self._earlier.discard(item)
            return self._failed(item, error)
        kept = pixels if "overlays" in self._settings.save else None
        height, width = pixels.shape[:2]
        return Loaded((height, width), network_input, kept, sha256, time.perf_counter() - started)

    def save(self, item: Item, loaded: Loaded, small: np.ndarray, share: float) -> Result:
        """Write an image's outputs; it is done when the journal says so.

        small  the network's probabilities (h, w) float32
        share  seconds of the network's time
        """
        started = time.perf_counter()
        try:
            result = self._write(item, loaded, small)
            seconds = round(loaded.seconds + share + time.perf_counter() - started, 4)
            result = replace(result, seconds=seconds)
            self._journal.add({**result.to_record(), "fingerprint": self._fingerprint})
            return result
        except Exception as error:
            self._outputs.discard(item.output_stem, self._settings.save)
            return self._failed(item, error)

    def _write(self, item: Item, loaded: Loaded, small: np.ndarray) -> Result:
        if not np.isfinite(small).all():
            raise AscsegError("the network's probabilities aren't numbers; the weights may be damaged")
        probability = resize_probability(small, loaded.size)
        mask = binarise(probability, self._settings.threshold, self._settings.cleaning)
        findings = measure(mask, probability)
        encode: dict[str, Callable[[], bytes]] = {
            "masks": lambda: mask_png(mask),
            "overlays": lambda: _overlay(loaded, mask),
            "probabilities": lambda: probability_png(probability),
            "polygons": lambda: geojson(polygons.feature_collection(mask, probability, item.name)),
        }
        paths = {kind: self._outputs.path(kind, item.output_stem) for kind in self._settings.save}
        for kind, path in paths.items():
            self._outputs.write(path, encode[kind]())
        return Result(
            image=item.name,
            status="ok" if findings.pixels else "empty",
            findings=findings,
            width=loaded.size[1],
            height=loaded.size[0],
            outputs={kind: place_inside(kind, item.output_stem) for kind in paths},
            input_sha256=loaded.sha256,
        )

    def _failed(self, item: Item, error: Exception) -> Result:
        if isinstance(error, (FolderError, StoreError)):
            self.full = error
            return Result(item.name, "failed", error.message)  # the way out is said once, at the end of the run
        if isinstance(error, AscsegError):
            return failed(item, error)
        if isinstance(error, MemoryError):
            return Result(item.name, "failed", "not enough memory for this image")
        self.bug = self.bug or error
        return Result(item.name, "failed", f"a bug in ascseg: {type(error).__name__}: {error}")


def _overlay(loaded: Loaded, mask: np.ndarray) -> bytes:
    assert loaded.pixels is not None, "pixels are kept wherever overlays are wanted"
    return picture_png(overlay.draw(loaded.pixels, mask))
