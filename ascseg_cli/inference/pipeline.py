"""Reading, the network and writing at once: the core of a run over many images.

Threads read and decode ahead, the calling thread runs the network, threads write behind; numpy, OpenCV and torch
let go of Python's lock while they work. Only a window of images is in flight, so memory is flat however many there
are, and results come out in the order of the inputs.

A CPU's cores are used best by as many images at once, each from file to outputs in one thread: a pass is of
loops too short to be shared without waiting. So it is done where the engine allows it and images are many.

Every pass of the network has the same shape (a short batch is filled up with copies), so that an image's result
doesn't depend on its batch mates; on the CPU a pass holds one image.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from ascseg_cli.data.discover import Item
from ascseg_cli.errors import DeviceMemoryError, OutputError
from ascseg_cli.inference.engine import Engine
from ascseg_cli.inference.results import Result, failed
from ascseg_cli.inference.tta import probabilities
from ascseg_cli.inference.work import Loaded

T = TypeVar("T")
GPU_BATCH = 32
MOST_WORKERS = 8
PIXELS_IN_FLIGHT = 64 << 20  # about 20 bytes each: pixels, probabilities, mask, overlay, what is being encoded


def usual_batch(device: str) -> int:
    """Images in one pass of the network, where the user doesn't say."""
    return GPU_BATCH if device.startswith("cuda") else 1


@dataclass
class Job:
    """One image in flight: `loaded` gives a Result at once where there is nothing left to do."""

    item: Item
    loaded: Future[Loaded | Result]
    saved: Future[Result] | None = None


class Work(Protocol):
    """What is done with each image around the network; used from several threads.

    full  the failure that ends the run; None while all is well
    """

    full: OutputError | None

    def load(self, number: int, item: Item) -> Loaded | Result:
        """Image `number` of the run, ready for the network; its result where there is nothing left to do."""
        ...

    def save(self, item: Item, loaded: Loaded, small: np.ndarray, share: float) -> Result:
        """The image's result, from the network's probabilities (h, w) and its share of the network's seconds."""
        ...


class Pipeline:
    """Runs images through `work.load`, the network and `work.save`.

    batch    images in one pass of the network; None: 1 on the CPU, GPU_BATCH on a GPU. An engine that takes pixels
             gets one
    threads  that read, and as many that write; or that do all of an image each
    warn     called with a line where batches had to become smaller
    """

    def __init__(
        self,
        engine: Engine,
        work: Work,
        *,
        tta: bool = False,
        batch: int | None = None,
        threads: int = 1,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._engine, self._work, self._tta, self._warn = engine, work, tta, warn
        # Pictures of several sizes make no batch.
        self._batch = 1 if engine.takes_pixels else batch or usual_batch(engine.device)
        self._workers = max(1, min(threads, MOST_WORKERS))
        self._stopped = threading.Event()
        self._in_flight: deque[Job] = deque()
        self._ahead: deque[Job] = deque()  # those of them that the network hasn't seen
        self._usual_pixels = PIXELS_IN_FLIGHT // 2  # taken for an image that isn't decoded yet: the last one's

    def stop(self) -> None:
        """Begin no further image; those in flight are finished. May be called from a signal handler."""
        self._stopped.set()

    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; after `stop`, those of the items that had begun."""
        if self._side_by_side(items):
            yield from self._run_side_by_side(items)
        else:
            yield from self._run_in_stages(items)

    def _side_by_side(self, items: Iterable[Item]) -> bool:
        few = isinstance(items, Sized) and len(items) < 2 * self._workers
        return self._workers > 1 and self._batch == 1 and not few and self._engine.takes_several

    def _run_side_by_side(self, items: Iterable[Item]) -> Iterator[Result]:
        """Each worker does all of an image, with its share of the cores."""
        feed = enumerate(items)
        with contextlib.ExitStack() as stack:
            begin = stack.enter_context(self._engine.shared(self._workers))
            workers = ThreadPoolExecutor(self._workers, "ascseg-image", initializer=begin)
            stack.callback(workers.shutdown, wait=True, cancel_futures=True)
            while True:
                for number, item in self._next_items(feed):
                    job = Job(item, Future())
                    job.saved = workers.submit(self._all_of, number, job)
                    self._in_flight.append(job)
                if not self._in_flight:
                    return
                yield from self._finished(at_least_one=True)

    def _all_of(self, number: int, job: Job) -> Result:
        """One image from its file to its outputs."""
        loaded = self._work.load(number, job.item)
        job.loaded.set_result(loaded)
        if isinstance(loaded, Result):
            return loaded
        started = time.perf_counter()
        try:
            (small,) = probabilities(self._engine, loaded.network_input[None], tta=self._tta)
        except DeviceMemoryError as error:
            return failed(job.item, error)
        return self._work.save(job.item, loaded, small, time.perf_counter() - started)

    def _run_in_stages(self, items: Iterable[Item]) -> Iterator[Result]:
        """The network in this thread, reading and writing in others."""
        feed = enumerate(items)
        readers = ThreadPoolExecutor(self._workers, "ascseg-read")
        writers = ThreadPoolExecutor(self._workers, "ascseg-write")
        try:
            while True:
                self._read_ahead(feed, readers)
                if not self._in_flight:
                    return
                batch = self._next_batch()
                if batch:
                    self._segment(batch, writers)
                yield from self._finished(at_least_one=not batch)
        finally:
            for pool in (readers, writers):
                pool.shutdown(wait=True, cancel_futures=True)

    def _read_ahead(self, feed: Iterator[tuple[int, Item]], readers: ThreadPoolExecutor) -> None:
        for number, item in self._next_items(feed):
            job = Job(item, readers.submit(self._work.load, number, item))
            self._in_flight.append(job)
            self._ahead.append(job)

    def _next_items(self, feed: Iterator[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
        """Those that there is room for now; each must be in flight before the next is asked for."""
        while not self._stopped.is_set() and not self._work.full and self._has_room():
            number, item = next(feed, (-1, None))
            if item is None:
                return
            yield number, item

    def _has_room(self) -> bool:
        if len(self._in_flight) >= 2 * (self._batch + self._workers):
            return False
        return not self._in_flight or sum(map(self._pixels_of, self._in_flight)) < PIXELS_IN_FLIGHT

    def _pixels_of(self, job: Job) -> int:
        if not job.loaded.done():
            return self._usual_pixels
        loaded = job.loaded.result()
        if isinstance(loaded, Result):
            return 0
        self._usual_pixels = loaded.size[0] * loaded.size[1]
        return self._usual_pixels

    def _next_batch(self) -> list[tuple[Job, Loaded]]:
        """The next images for the network, in order; waits for each to be read."""
        batch: list[tuple[Job, Loaded]] = []
        while self._ahead and len(batch) < self._batch:
            job = self._ahead.popleft()
            loaded = _result(job.loaded)
            if isinstance(loaded, Loaded):
                batch.append((job, loaded))
            else:
                job.saved = _known(loaded)
        return batch

    def _segment(self, batch: list[tuple[Job, Loaded]], writers: ThreadPoolExecutor) -> None:
        started = time.perf_counter()
        maps = self._maps([loaded.network_input for _, loaded in batch])
        share = (time.perf_counter() - started) / len(batch)
        for (job, loaded), small in zip(batch, maps):
            if isinstance(small, DeviceMemoryError):
                job.saved = _known(failed(job.item, small))
            else:
                job.saved = writers.submit(self._work.save, job.item, loaded, small, share)

    def _maps(self, images: list[np.ndarray]) -> list[np.ndarray | DeviceMemoryError]:
        """Each image's probabilities; where the device's memory holds no such batch, halves from here on."""
        maps: list[np.ndarray | DeviceMemoryError] = []
        while len(maps) < len(images):
            some = images[len(maps) : len(maps) + self._batch]
            try:
                filled = np.stack(some + [some[-1]] * (self._batch - len(some)))
                maps += list(probabilities(self._engine, filled, tta=self._tta))[: len(some)]
                continue
            except DeviceMemoryError as error:
                lack = error
            except MemoryError:  # this machine's, for the batch itself
                lack = DeviceMemoryError(f"no memory for {self._batch:,} images at once")
            if self._batch == 1:
                maps.append(lack)
            else:
                self._batch //= 2
                self._warn(f"{lack.message}; from here on {self._batch} at a time")
        return maps

    def _finished(self, *, at_least_one: bool) -> Iterator[Result]:
        """Results at the head of the line; perhaps waiting for the first."""
        while self._in_flight:
            saved = self._in_flight[0].saved
            if saved is None or not (at_least_one or saved.done()):
                return
            result = _result(saved)
            self._in_flight.popleft()
            at_least_one = False
            yield result


def _known(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future


def _result(future: Future[T]) -> T:
    # In short turns, so that Ctrl-C is heard on systems where a wait for a lock can't be interrupted.
    while not wait([future], timeout=0.5).done:
        pass
    return future.result()
