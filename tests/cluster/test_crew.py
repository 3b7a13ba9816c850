"""What the leader does when workers die, by a stand-in for Ray whose workers die where the test says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ascseg_cli.cluster.crew import Crew, _Hand
from ascseg_cli.cluster.shards import Shard, divide
from ascseg_cli.cluster.worker import STALE, Done, Introduction, Job, Refusal, Worker
from ascseg_cli.data.discover import Item
from ascseg_cli.errors import OutputError, WeightsError
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.settings import Settings

ITEMS = [Item(f"{n}.png", f"{n}.png", str(n)) for n in range(300)]


class DeadError(Exception):
    """Stands for Ray's errors of lost workers."""


class Journal:
    """Remembers what it was given, in order."""

    def __init__(self, known: dict[str, Any] | None = None, room: int = 10**9) -> None:
        self.known, self.room, self.added = known or {}, room, []

    def get(self, image: str) -> dict[str, Any] | None:
        return self.known.get(image)

    def add(self, record: dict[str, Any]) -> None:
        if len(self.added) >= self.room:
            raise OutputError("full")
        self.added.append(record)


class StandIn:
    """Ray, as far as the leader knows it: calls are done when they are waited for, the latest first."""

    exceptions = SimpleNamespace(
        RayError=DeadError,
        RayTaskError=type("Task", (Exception,), {}),
        ActorDiedError=type("Died", (DeadError,), {}),
    )

    def __init__(self, answer: Callable[[Shard], Done]) -> None:
        self._answer, self._calls = answer, {}
        self.done: list[Shard] = []

    def worker(self) -> Any:
        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda argument: self._call(name, argument))

        return SimpleNamespace(introduce=method("introduce"), segment=method("segment"))

    def _call(self, name: str, argument: Any) -> int:
        self._calls[len(self._calls)] = name, argument
        return len(self._calls) - 1

    def put(self, value: Any) -> Any:
        return value

    def wait(self, refs: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return refs[-1:], refs[:-1]

    def get(self, ref: int) -> Any:
        name, argument = self._calls[ref]
        if name == "introduce":
            return Introduction(None, "0", "cpu", "", "cpu", "1", "here", 1)  # type: ignore[arg-type]
        self.done.append(argument)
        return self._answer(argument)


def well(shard: Shard) -> Done:
    return Done(
        results=[Result(item.name, "ok") for item in shard.items],
        records=[{"image": item.name, "n": number} for number, item in zip(shard.numbers, shard.items)],
    )


def crew(ray: StandIn, *, workers: int = 3) -> tuple[Crew, list[str]]:
    said: list[str] = []
    job = Job(b"", "w", Settings(threshold=0.5), Path("/out"), "cpu", "cpu", 1, resume=False)
    made = Crew(ray, [_Hand(ray.worker()) for _ in range(workers)], job, said.append)  # type: ignore[arg-type]
    made.gather()
    return made, said


def test_results_come_in_order_and_each_image_is_recorded_once() -> None:
    ray, journal = StandIn(well), Journal()
    team, said = crew(ray)
    team.begin(journal, None, lambda number, features: None)
    assert [result.image for result in team.run(ITEMS)] == [item.name for item in ITEMS]
    assert sorted(record["n"] for record in journal.added) == list(range(300))
    assert len(ray.done) > 6
    assert said == []


def test_what_a_dead_worker_had_is_done_by_others() -> None:
    losses = iter(range(4))

    def answer(shard: Shard) -> Done:
        if next(losses, None) is not None:
            raise DeadError
        return well(shard)

    journal = Journal()
    team, said = crew(StandIn(answer))
    team.begin(journal, None, lambda number, features: None)
    results = list(team.run(ITEMS))
    assert [(result.image, result.status) for result in results] == [(item.name, "ok") for item in ITEMS]
    assert Counter(record["image"] for record in journal.added) == {item.name: 1 for item in ITEMS}
    assert len(said) == 4
    assert team.lost_some


def test_an_image_that_kills_workers_fails_alone() -> None:
    def answer(shard: Shard) -> Done:
        if "77.png" in {item.name for item in shard.items}:
            raise DeadError
        return well(shard)

    journal = Journal()
    team, _ = crew(StandIn(answer))
    team.begin(journal, None, lambda number, features: None)
    results = {result.image: result for result in team.run(ITEMS)}
    assert [name for name, result in results.items() if result.status != "ok"] == ["77.png"]
    assert "workers died over it" in results["77.png"].reason
    assert len(results) == len(ITEMS)


def test_a_stale_record_is_taken_back_before_the_image_is_done_again() -> None:
    def answer(shard: Shard) -> Done:
        done = well(shard)
        for place, item in enumerate(shard.items):
            if item.name in shard.records and not shard.redo:
                done.results[place] = Result(item.name, STALE)
                done.records[place] = {"image": item.name}
        return done

    journal = Journal({"5.png": {"image": "5.png"}})
    team, _ = crew(StandIn(answer))
    team.begin(journal, SimpleNamespace(redone=Counter()), lambda number, features: None)  # type: ignore[arg-type]
    assert {result.status for result in team.run(ITEMS)} == {"ok"}
    of_it = [record for record in journal.added if record["image"] == "5.png"]
    assert of_it == [{"image": "5.png"}, {"image": "5.png", "n": 5}]


def test_a_journal_that_takes_no_more_ends_the_run_in_good_order() -> None:
    journal = Journal(room=50)
    team, _ = crew(StandIn(well))
    team.begin(journal, None, lambda number, features: None)
    results = list(team.run(ITEMS))
    assert team.full
    assert [result.image for result in results] == [item.name for item in ITEMS[: len(results)]]
    assert {result.status for result in results} == {"ok", "skipped"}
    recorded = {record["image"] for record in journal.added}
    assert {result.image for result in results if result.status == "ok"} <= recorded


def test_stop_gives_what_had_begun() -> None:
    team, _ = crew(StandIn(well))
    team.begin(Journal(), None, lambda number, features: None)
    results = []
    for result in team.run(ITEMS):
        results.append(result.image)
        team.stop()
    assert results == [item.name for item in ITEMS[: len(results)]]
    assert len(results) < len(ITEMS)


def test_a_worker_refuses_in_words_and_notices_another_machine_s_folder(tmp_path: Path) -> None:
    worker = Worker()
    refusal = worker.introduce(Job(b"no weights", "w", Settings(0.5), tmp_path, "cpu", "cpu", 1, resume=False))
    assert isinstance(refusal, Refusal)
    assert issubclass(refusal.kind, WeightsError)
    full = worker.segment(Shard([0], ITEMS[:1])).full
    assert full is not None
    assert "isn't the same folder" in full.message
    worker._held.close()


def test_workers_on_torch_and_on_onnxruntime_are_of_different_kinds(tmp_path: Path, drawn_weights: Path) -> None:
    """So that the images of one run are never shared between them."""
    pytest.importorskip("onnxruntime", reason="it runs the weights of the second worker")
    kinds = []
    for backend in ("cpu", "onnxruntime", "onnxruntime"):
        worker, weights = Worker(), drawn_weights.read_bytes()
        who = worker.introduce(
            Job(weights, drawn_weights.name, Settings(0.5), tmp_path, "auto", backend, 1, resume=False)
        )
        worker._held.close()
        assert isinstance(who, Introduction)
        assert who.backend == backend
        kinds.append(who.kind)
    assert kinds[0] != kinds[1] == kinds[2]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_shards_share_the_images_evenly_and_by_name_alone(parts: int) -> None:
    shards = divide(list(enumerate(ITEMS)), parts)
    assert sorted(number for shard in shards for number in shard.numbers) == list(range(300))
    assert all(shard.numbers == sorted(shard.numbers) for shard in shards)
    assert all(abs(len(shard.items) - 300 / parts) < 4 * (300 / parts) ** 0.5 for shard in shards)
    others = divide(list(enumerate(ITEMS[::-1])), parts)
    assert {frozenset(i.name for i in s.items) for s in others} == {
        frozenset(i.name for i in s.items) for s in shards
    }
