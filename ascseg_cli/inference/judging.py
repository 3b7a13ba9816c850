"""The network over images whose truth is known: each probability map goes to a judge instead of into files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from ascseg_cli.data.decode import MAX_PIXELS
from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Item
from ascseg_cli.data.preprocess import resize_probability
from ascseg_cli.data.source import file_bytes
from ascseg_cli.errors import AscsegError, OutputError
from ascseg_cli.inference.engine import Engine
from ascseg_cli.inference.pipeline import Pipeline
from ascseg_cli.inference.postprocess import Cleaning, binarise
from ascseg_cli.inference.results import Result, failed
from ascseg_cli.inference.work import Loaded

Verdict = TypeVar("Verdict")
Judge = Callable[[Item, np.ndarray, np.ndarray], Verdict]  # item, probability (h, w) float32, mask (h, w) bool


class _Judged(Generic[Verdict]):
    """The work around the network, as the pipeline wants it."""

    full: OutputError | None = None

    def __init__(
        self, engine: Engine, judge: Judge[Verdict], decoders: Decoders, threshold: float, cleaning: Cleaning
    ) -> None:
        self._engine, self._judge, self._decoders = engine, judge, decoders
        self._threshold, self._cleaning = threshold, cleaning
        self.verdicts: dict[str, Verdict] = {}

    def load(self, number: int, item: Item) -> Loaded | Result:
        started = time.perf_counter()
        try:
            content, by_name = file_bytes(item.path, MAX_PIXELS), item.path.suffix.lower() == ".dcm"
            pixels = self._decoders.read_pixels(content, name=item.name, by_name=by_name)
            network_input = self._engine.prepared(pixels)
        except (AscsegError, MemoryError) as error:
            return _failed(item, error)
        seconds = time.perf_counter() - started
        return Loaded((pixels.shape[0], pixels.shape[1]), network_input, None, "", seconds)

    def save(self, item: Item, loaded: Loaded, small: np.ndarray, share: float) -> Result:
        if not np.isfinite(small).all():
            return Result(
                item.name, "failed", "the network's probabilities aren't numbers; are the weights damaged?"
            )
        try:
            probability = resize_probability(small, loaded.size)
            mask = binarise(probability, self._threshold, self._cleaning)
            self.verdicts[item.name] = self._judge(item, probability, mask)
        except (AscsegError, MemoryError) as error:
            return _failed(item, error)
        return Result(item.name, "ok")


def judged(
    engine: Engine,
    items: Sequence[Item],
    judge: Judge[Verdict],
    *,
    threshold: float,
    cleaning: Cleaning,
    tta: bool = False,
    batch: int | None = None,
    threads: int = 1,
) -> Iterator[tuple[Item, Verdict | str]]:
    """Each item with its verdict, or with the reason why there is none; in the order of the items.

    judge  is called from several threads
    """
    with Decoders() as decoders:
        work = _Judged(engine, judge, decoders, threshold, cleaning)
        pipeline = Pipeline(engine, work, tta=tta, batch=batch, threads=threads)
        for item, result in zip(items, pipeline.run(items)):
            yield item, work.verdicts.pop(item.name) if result.status == "ok" else result.reason


def _failed(item: Item, error: Exception) -> Result:
    if isinstance(error, AscsegError):
        return failed(item, error)
    return Result(item.name, "failed", "not enough memory for this image")
