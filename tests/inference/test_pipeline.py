"""The pipeline: order, flat memory, batches, stopping; with a stand-in for the work and the network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Found, Item
from ascseg_cli.errors import DeviceMemoryError
from ascseg_cli.inference import pipeline
from ascseg_cli.inference.journal import Journal
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.pipeline import Pipeline
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.settings import Settings
from ascseg_cli.inference.work import Loaded, Work

ITEMS = tuple(Item(f"{n}.png", f"{n}.png", str(n)) for n in range(40))


@dataclass
class SlowWork:
    """Takes a different time for each image, so that no order comes by luck; counts what is in flight."""

    pixels: int = 100
    full: object = None
    bug: object = None
    held: set[str] = field(default_factory=set)
    most_held: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, number: int, item: Item) -> Loaded | Result:
        with self.lock:
            self.held.add(item.name)
            self.most_held = max(self.most_held, len(self.held))
        time.sleep(0.003 * (number * 7 % 5))
        if number % 10 == 3:
            self.held.discard(item.name)
            return Result(item.name, "failed", "drawn so")
        return Loaded((1, self.pixels), np.full((3, 4, 4), number, np.float32), None, "", 0.0)

    def save(self, item: Item, loaded: Loaded, small: np.ndarray, share: float) -> Result:
        time.sleep(0.003 * (int(small[0, 0]) * 3 % 4))
        with self.lock:
            self.held.discard(item.name)
        return Result(item.name, "ok", str(int(small[0, 0])))


class Numbers:
    """Hands the number in each image through."""

    device, takes_several, takes_pixels = "cpu", False, False

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.shapes.add(images.shape)
        return images[:, 0]


class Several(Numbers):
    """Takes several passes at once, and notes how many came and which threads said that they would."""

    takes_several = True

    def __init__(self) -> None:
        super().__init__()
        self.begun: set[int] = set()
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def shared(self, parts: int) -> Iterator[Callable[[], None]]:
        self.parts = parts
        yield lambda: self.begun.add(threading.get_ident())

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        assert threading.get_ident() in self.begun
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.01)
        with self.lock:
            self.running -= 1
        return super().probabilities(images)


def numbers(results: Iterator[Result]) -> list[str]:
    return [result.image for result in results]


@pytest.mark.parametrize("batch", [None, 1, 3, 64])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kind", [Numbers, Several])
def test_every_image_once_in_order_with_its_own_probabilities(
    batch: int | None, threads: int, kind: type[Numbers]
) -> None:
    engine = kind() if threads > 1 and batch in (None, 1) else Numbers()
    results = list(Pipeline(engine, SlowWork(), batch=batch, threads=threads).run(ITEMS))  # type: ignore[arg-type]
    assert [result.image for result in results] == [item.name for item in ITEMS]
    for number, result in enumerate(results):
        assert (result.status, result.reason) == (
            ("failed", "drawn so") if number % 10 == 3 else ("ok", str(number))
        )
    assert engine.shapes == {(batch or 1, 3, 4, 4)}, "a pass of another shape may round otherwise"


def test_the_window_bounds_what_is_in_flight() -> None:
    work = SlowWork()
    list(Pipeline(Numbers(), work, threads=2).run(ITEMS))  # type: ignore[arg-type]
    assert 2 < work.most_held <= 2 * (1 + 2)


def test_an_engine_that_takes_several_gets_an_image_from_each_worker() -> None:
    work, engine = SlowWork(), Several()
    list(Pipeline(engine, work, threads=3).run(ITEMS))  # type: ignore[arg-type]
    assert (engine.parts, len(engine.begun)) == (3, 3)
    assert engine.most_running > 1
    assert work.most_held == 3, "none is read before a worker is free for it"


def test_few_images_get_all_cores_one_after_another() -> None:
    results = list(Pipeline(Numbers(), SlowWork(), threads=4).run(ITEMS[:7]))  # type: ignore[arg-type]
    with_several = Several()
    with_several.begun.add(threading.get_ident())
    assert list(Pipeline(with_several, SlowWork(), threads=4).run(ITEMS[:7])) == results  # type: ignore[arg-type]
    assert with_several.most_running == 1


def test_a_failing_pass_ends_the_run_with_its_error() -> None:
    class Failing(Several):
        def probabilities(self, images: np.ndarray) -> np.ndarray:
            raise MemoryError("in a worker")

    before = threading.active_count()
    with pytest.raises(MemoryError, match="in a worker"):
        list(Pipeline(Failing(), SlowWork(), threads=2).run(ITEMS))  # type: ignore[arg-type]
    assert threading.active_count() == before


class Small(Numbers):
    """A device whose memory holds so many images at once; `busy` passes find it full of another's."""

    def __init__(self, holds: int, busy: int = 0) -> None:
        super().__init__()
        self.holds, self.busy = holds, busy
        self.sizes: list[int] = []

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        self.busy -= 1
        if len(images) > self.holds or self.busy >= 0:
            raise DeviceMemoryError(f"cuda:0 has no memory for {len(images)} images at once")
        return super().probabilities(images)


@pytest.mark.parametrize(
    ("batch", "holds", "sizes"), [(32, 8, {32, 16, 8}), (5, 3, {5, 2}), (7, 1, {7, 3, 1}), (4, 4, {4})]
)
def test_batches_are_halved_until_the_device_s_memory_holds_them(batch: int, holds: int, sizes: set[int]) -> None:
    engine, said = Small(holds), []
    line = Pipeline(engine, SlowWork(), batch=batch, threads=2, warn=said.append)  # type: ignore[arg-type]
    results = list(line.run(ITEMS))
    assert [result.image for result in results] == [item.name for item in ITEMS]
    want = [("failed", "drawn so") if n % 10 == 3 else ("ok", str(n)) for n in range(len(ITEMS))]
    assert [(result.status, result.reason) for result in results] == want
    assert set(engine.sizes) == sizes
    assert engine.sizes == sorted(engine.sizes, reverse=True), "a size that failed isn't tried again"
    assert len(said) == len(sizes) - 1
    assert all("no memory for" in line and "from here on" in line for line in said)


def test_a_batch_that_this_machine_s_memory_does_not_hold_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def stack(images: list[np.ndarray]) -> np.ndarray:
        if len(images) > 2:
            raise MemoryError
        return np.array(images)

    engine, said = Numbers(), []
    monkeypatch.setattr(pipeline.np, "stack", stack)
    results = list(Pipeline(engine, SlowWork(), batch=8, warn=said.append).run(ITEMS[:3]))  # type: ignore[arg-type]
    assert [result.reason for result in results] == ["0", "1", "2"]
    assert said == [
        "no memory for 8 images at once; from here on 4 at a time",
        "no memory for 4 images at once; from here on 2 at a time",
    ]


def test_an_image_that_fits_no_memory_fails_and_the_next_is_tried() -> None:
    results = list(Pipeline(Small(1, busy=3), SlowWork(), batch=2, threads=2).run(ITEMS[:3]))  # type: ignore[arg-type]
    assert [(result.status, result.reason) for result in results] == [
        ("failed", "cuda:0 has no memory for 1 images at once"),
        ("failed", "cuda:0 has no memory for 1 images at once"),
        ("ok", "2"),
    ]


@pytest.mark.parametrize(("kind", "batch"), [(Numbers, 2), (Several, 1)])
def test_large_images_go_one_at_a_time_when_memory_says_so(
    monkeypatch: pytest.MonkeyPatch, kind: type[Numbers], batch: int
) -> None:
    monkeypatch.setattr(pipeline, "PIXELS_IN_FLIGHT", 1000)
    work = SlowWork(pixels=900)
    list(Pipeline(kind(), work, threads=4, batch=batch).run(ITEMS))  # type: ignore[arg-type]
    assert work.most_held <= 3


def test_reading_network_and_writing_overlap() -> None:
    """Three stages of 20 ms, 12 images: 0.72 s one after another, 0.28 s overlapped."""

    class Sleepy(SlowWork):
        def load(self, number: int, item: Item) -> Loaded:
            time.sleep(0.02)
            return Loaded((1, 1), np.zeros((3, 4, 4), np.float32), None, "", 0.0)

        def save(self, item: Item, loaded: Loaded, small: np.ndarray, share: float) -> Result:
            time.sleep(0.02)
            return Result(item.name, "ok")

    class SleepyEngine(Numbers):
        def probabilities(self, images: np.ndarray) -> np.ndarray:
            seen.append(threading.active_count())
            time.sleep(0.02)
            return images[:, 0]

    seen: list[int] = []
    list(Pipeline(SleepyEngine(), Sleepy(), threads=1).run(ITEMS[:12]))  # type: ignore[arg-type]
    assert max(seen) >= threading.active_count() + 2, "reader and writer run beside the network"


@pytest.mark.parametrize("kind", [Numbers, Several])
def test_stopping_finishes_what_has_begun_and_nothing_else(kind: type[Numbers]) -> None:
    work = SlowWork()
    line = Pipeline(kind(), work, threads=2)  # type: ignore[arg-type]
    results = []
    for result in line.run(ITEMS):
        results.append(result)
        if len(results) == 5:
            line.stop()
    assert [r.image for r in results] == [item.name for item in ITEMS[: len(results)]]
    assert 5 <= len(results) <= 5 + 2 * (1 + 2)
    assert not work.held


@pytest.mark.parametrize("kind", [Numbers, Several])
def test_leaving_early_leaves_no_thread_behind(kind: type[Numbers]) -> None:
    before = threading.active_count()
    results = Pipeline(kind(), SlowWork(), threads=3).run(ITEMS)  # type: ignore[arg-type]
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_no_items() -> None:
    assert list(Pipeline(Numbers(), SlowWork()).run([])) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 8, "tta": True}])
def test_real_work_gives_the_same_files_for_any_batch(
    tmp_path: Path, engine, found: Callable[[int], Found], settings: dict[str, int]
) -> None:
    kinds = ("masks", "overlays", "probabilities", "polygons")
    written = {}
    for name, chosen in (("alone", {**settings, "batch_size": 1}), ("together", settings)):
        outputs = OutputFolder(tmp_path / name)
        journal = Journal(outputs.root)
        journal.open()
        how = Settings(threshold=0.5, save=kinds, **chosen)  # type: ignore[arg-type]
        with Decoders() as decoders:
            work = Work(engine, how, outputs, journal, decoders)
            line = Pipeline(engine, work, tta=how.tta, batch=how.batch_size, threads=2)
            results = list(line.run(found(7).items))
        journal.close()
        assert [result.status for result in results] == ["ok", "empty", *["ok"] * 5]
        paths = [path for path in sorted(outputs.root.rglob("*.*")) if path.parent != outputs.root]
        assert len(paths) == 7 * len(kinds)
        written[name] = {path.relative_to(outputs.root): path.read_bytes() for path in paths}
    assert written["alone"] == written["together"]
