"""Many items through a function by several threads: results in the items' order, only a window in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
_AHEAD = 4  # items for each thread: enough that none waits for a slow one


def in_order(function: Callable[[Item], Outcome], items: Iterable[Item], threads: int) -> Iterator[Outcome]:
    """function(item) for each item, in order. What it raises is raised here; the rest is then given up."""
    pending: deque[Future[Outcome]] = deque()
    with ThreadPoolExecutor(threads, "ascseg-score") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
