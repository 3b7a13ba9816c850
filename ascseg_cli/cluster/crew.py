"""The leader of a run on a cluster: hires workers, hands out shards, and gives results in the order of the inputs.

A shard is one worker's until it has told what came of it. If the worker dies before, whether by a signal, for want
of memory, or with its machine, the shard is handed out again; Ray starts the worker anew where there is room.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

from ascseg_cli.cluster.shards import Shard, divide
from ascseg_cli.cluster.worker import STALE, Done, Introduction, Job, Refusal, Worker
from ascseg_cli.data.discover import Item
from ascseg_cli.errors import BackendError, OutputError, UsageError
from ascseg_cli.inference.destination import Records
from ascseg_cli.inference.performer import NOT_WRITTEN, Features, Performer
from ascseg_cli.inference.pipeline import usual_batch
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.resume import Earlier

_TURNS = 8  # images in a shard for each that is done at once
_AT_ONCE = 2  # shards that a worker has: the second lies ready when the first is done
_ROUNDS = 3  # begun and not given back in full: what bounds the leader's memory
_PATIENCE = 60.0  # seconds without a worker before that is said
_TURN = 0.5  # seconds that the leader waits at a time, so that Ctrl-C is heard
_WORKER_THREADS = 4  # of a worker on the CPU, where the user doesn't say


@dataclass
class _Hand:
    """A worker as the leader sees it: Ray's handle, whether it has introduced itself, and its shards."""

    handle: Any
    ready: bool = False
    shards: int = 0


class Crew(Performer):
    """The workers of one run; made by `hire`, to be gathered before they begin."""

    def __init__(self, ray: ModuleType, hands: list[_Hand], job: Job, warn: Callable[[str], None]) -> None:
        self._ray, self._hands, self._job, self._warn = ray, hands, job, warn
        self._told = ray.put(job)
        self._out: dict[Any, tuple[Shard | None, _Hand]] = {}
        self._shards: deque[Shard] = deque()
        self._results: dict[int, Result] = {}
        self._begun = self._given = 0
        self._stopped = False
        self._first: Introduction | None = None
        self._why = ""
        self._quiet_until = time.monotonic() + _PATIENCE
        for hand in hands:
            self._ask(hand)

    @property
    def workers(self) -> int:
        """How many there are or will be."""
        return len(self._hands)

    def gather(self) -> None:
        """Wait for the first worker. Raises what keeps them from working."""
        while self._first is None:
            self._wait()
            if not self._hands:
                raise BackendError(
                    f"no worker of the Ray cluster could start: {self._why}",
                    "every machine of it needs the same ascseg, with the extra `ray`",
                )

    def begin(self, journal: Records, earlier: Earlier | None, see: Callable[[int, Features], None]) -> None:
        """Where records go, what may stand of earlier runs, and who looks at the first images."""
        self._journal, self._earlier, self._see = journal, earlier, see

    def stop(self) -> None:
        """Begin no further round; may be called from a signal handler."""
        self._stopped = True

    @property
    def _size(self) -> int:
        """Images in a shard: some seconds of work, or of a GPU."""
        batch = self._job.settings.batch_size or usual_batch(self.described.device)
        return _TURNS * max(self._job.threads, 2 * batch)

    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; after `stop`, those of the rounds that had begun."""
        feed = enumerate(items)
        while True:
            while self._begin_round(feed):
                self._hand_out()
            self._hand_out()
            if not self._shards and not any(shard for shard, _ in self._out.values()):
                return
            self._wait()
            while self._given in self._results:
                yield self._results.pop(self._given)
                self._given += 1

    def _begin_round(self, feed: Iterator[tuple[int, Item]]) -> bool:
        """The next images as shards, where workers wait for some; False where there is nothing to begin."""
        size = self._size * len(self._hands)
        if self._stopped or self.full or not self._has_room() or self._begun - self._given >= _ROUNDS * size:
            return False
        some = list(islice(feed, size))
        self._begun += len(some)
        for shard in divide(some, len(self._hands)):
            if self._earlier:
                known = ((item.name, self._journal.get(item.name)) for item in shard.items)
                shard.records = {name: record for name, record in known if record is not None}
            self._shards.append(shard)
        return bool(some)

    def _has_room(self) -> bool:
        return not self._shards and any(hand.ready and hand.shards < _AT_ONCE for hand in self._hands)

    def _hand_out(self) -> None:
        """Shards to the workers that are ready, one each before anyone gets a second."""
        for most in range(1, _AT_ONCE + 1):
            for hand in self._hands:
                if self._shards and hand.ready and hand.shards < most:
                    shard = self._shards.popleft()
                    self._out[hand.handle.segment.remote(shard)] = shard, hand
                    hand.shards += 1

    def _wait(self) -> None:
        """Take what the workers tell within a short time."""
        told, _ = self._ray.wait(list(self._out), timeout=_TURN)
        for ref in told:
            shard, hand = self._out.pop(ref)
            hand.shards -= shard is not None
            try:
                answer = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # a mistake of ours, over there
                self._out_of_order(shard, error)
            except self._ray.exceptions.RayError as error:
                self._lost(shard, hand, error)
            else:
                self._take(shard, hand, answer)
        self._say_if_alone()

    def _take(self, shard: Shard | None, hand: _Hand, answer: Introduction | Refusal | Done) -> None:
        if isinstance(answer, Refusal):
            raise (UsageError if issubclass(answer.kind, UsageError) else BackendError)(
                answer.message, answer.hint
            )
        if isinstance(answer, Introduction):
            self._welcome(hand, answer)
        elif shard is not None:
            self._enter(shard, answer)

    def _welcome(self, hand: _Hand, who: Introduction) -> None:
        if self._first is None:
            self._first = self.described = who
        if who.kind == self._first.kind:
            hand.ready = True
            return
        self._warn(f"a worker on {who.machine} is left out: it has {who.kind}, the first one {self._first.kind}")
        self._dismiss(hand)

    def _enter(self, shard: Shard, done: Done) -> None:
        """Record a shard: only here, so that each image is recorded once."""
        if done.bug:
            self.bug = self.bug or RuntimeError(done.bug)
        self.full = self.full or done.full
        for text in done.said:
            self._warn(text)
        try:
            for record in done.records:
                self._journal.add(record)
        except OutputError as error:
            self.full = self.full or error
            return self._skip(shard)
        if self._earlier:
            self._earlier.redone.update(done.redone)
        for number, features in done.features:
            self._see(number, features)
        for number, result in zip(shard.numbers, done.results):
            if result.status != STALE:
                self._results[number] = result
        stale = [place for place, result in enumerate(done.results) if result.status == STALE]
        if stale:
            self._shards.appendleft(shard.part(stale, redo=True))
        if self.full:
            self._skip(shard.part(range(len(done.results), len(shard.items)), redo=False))
            while self._shards:
                self._skip(self._shards.popleft())

    def _lost(self, shard: Shard | None, hand: _Hand, error: Exception) -> None:
        """A worker died: what it had is handed out again, and it is asked again when Ray has started it anew."""
        self._why = (str(error).strip().splitlines() or [""])[-1].strip()[:300]  # below what Ray tells around it
        asked = any(one is hand and work is None for work, one in self._out.values())
        if shard is None and isinstance(error, self._ray.exceptions.ActorDiedError):
            self._dismiss(hand)  # it can't even start
        elif not asked:
            self._ask(hand)
        if shard is None:
            return
        self.lost_some = True
        again = shard.after_a_loss()
        if again:
            self._warn(f"a worker was lost; {len(shard.items)} images are done again")
        for number, item in zip(shard.numbers, shard.items) if not again else ():
            self._results[number] = Result(item.name, "failed", f"workers died over it, {shard.losses} in a row")
        if self.full:
            for one in again:
                self._skip(one)
        else:
            self._shards.extendleft(reversed(again))

    def _out_of_order(self, shard: Shard | None, error: Exception) -> None:
        self.bug = self.bug or error
        if shard is None:
            raise error
        what = (str(error).strip().splitlines() or [""])[-1]
        for number, item in zip(shard.numbers, shard.items):
            self._results[number] = Result(item.name, "failed", f"a bug in ascseg: {what}")

    def _skip(self, shard: Shard) -> None:
        for number, item in zip(shard.numbers, shard.items):
            self._results[number] = Result(item.name, "skipped", NOT_WRITTEN)

    def _ask(self, hand: _Hand) -> None:
        hand.ready = False
        self._out[hand.handle.introduce.remote(self._told)] = None, hand

    def _dismiss(self, hand: _Hand) -> None:
        self._ray.kill(hand.handle)
        self._hands.remove(hand)
        if not self._hands and self._first is not None:
            self.full = self.full or OutputError(f"no worker is left: {self._why}", "mend the cluster")
            while self._shards:
                self._skip(self._shards.popleft())

    def _say_if_alone(self) -> None:
        now = time.monotonic()
        if any(hand.ready for hand in self._hands):
            self._quiet_until = now + _PATIENCE
        elif now > self._quiet_until:
            self._quiet_until = now + _PATIENCE
            self._warn("no worker is there; waiting for room in the Ray cluster (`ray status` tells of it)")


def hire(ray: ModuleType, job: Job, warn: Callable[[str], None]) -> Crew:
    """A crew that fills the cluster: a worker for each GPU, else for every `job.threads` cores of each machine.

    Raises BackendError where there is no room, or no worker can start.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if job.device == "cpu" else sum(int(machine.get("GPU", 0)) for machine in machines)
    count = gpus or sum(int(machine.get("CPU", 0)) // job.threads for machine in machines)
    if not count:
        raise BackendError(f"the Ray cluster has no machine with {job.threads} cores", "give fewer --threads")
    options = {"num_cpus": job.threads, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    kind = ray.remote(Worker).options(**options, num_gpus=1 if gpus else 0)
    return Crew(ray, [_Hand(kind.remote()) for _ in range(count)], job, warn)


def threads_of_a_worker(ray: ModuleType, wanted: int | None) -> int:
    """What the user said, else a few, as far as the smallest machine has them."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return wanted or max(1, min([_WORKER_THREADS, *filter(None, cores)]))
