"""Compiled kernels one after another in one call for each thread, with nothing of Python between them."""

from __future__ import annotations

import ctypes
import functools
import lzma
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ascseg_cli.kernels import machine_code
from ascseg_cli.kernels.compiled import Kernel, Work, share_of
from ascseg_cli.kernels.jit import cache_folder

# Runs one thread's part of a list of kernels. Its words: the list, how many rows it has, a count that all threads
# share, 0 at first, and how many threads there are. A row: a kernel's address, or 0; that of its words; 1 where
# all threads wait for each other after it. A thread that waits looks a thousand times, then lets others run.
# Returns 0, or what kernels returned that failed.
_CODE = """
declare i32 @ascseg_yield()

define i32 @entry(ptr %words) {
begin:
  %list.word = load i64, ptr %words
  %list = inttoptr i64 %list.word to ptr
  %rows.at = getelementptr i64, ptr %words, i64 1
  %rows = load i64, ptr %rows.at
  %count.at = getelementptr i64, ptr %words, i64 2
  %count.word = load i64, ptr %count.at
  %count = inttoptr i64 %count.word to ptr
  %threads.at = getelementptr i64, ptr %words, i64 3
  %threads = load i64, ptr %threads.at
  br label %row
row:
  %i = phi i64 [0, %begin], [%next, %after]
  %waits = phi i64 [0, %begin], [%waits.next, %after]
  %failed = phi i32 [0, %begin], [%failed.next, %after]
  %more = icmp ult i64 %i, %rows
  br i1 %more, label %work, label %out
work:
  %at = getelementptr [3 x i64], ptr %list, i64 %i
  %kernel.word = load i64, ptr %at
  %none = icmp eq i64 %kernel.word, 0
  br i1 %none, label %worked, label %call
call:
  %kernel = inttoptr i64 %kernel.word to ptr
  %own.at = getelementptr i64, ptr %at, i64 1
  %own.word = load i64, ptr %own.at
  %own = inttoptr i64 %own.word to ptr
  %status = call i32 %kernel(ptr %own)
  br label %worked
worked:
  %said = phi i32 [0, %work], [%status, %call]
  %failed.next = or i32 %failed, %said
  %wait.at = getelementptr i64, ptr %at, i64 2
  %wait = load i64, ptr %wait.at
  %next = add i64 %i, 1
  %waits.next = add i64 %waits, %wait
  %goes.on = icmp eq i64 %wait, 0
  br i1 %goes.on, label %after, label %arrive
arrive:
  %before = atomicrmw add ptr %count, i64 1 seq_cst
  %all = mul i64 %waits.next, %threads
  br label %look
look:
  %looks = phi i64 [0, %arrive], [%looks.next, %again], [%looks.next, %rest]
  %here = load atomic i64, ptr %count seq_cst, align 8
  %together = icmp uge i64 %here, %all
  br i1 %together, label %after, label %again
again:
  %looks.next = add i64 %looks, 1
  %long = icmp ugt i64 %looks, 1000
  br i1 %long, label %rest, label %look
rest:
  %ignored = call i32 @ascseg_yield()
  br label %look
after:
  br label %row
out:
  ret i32 %failed
}
"""


class Gang:
    """Kernels in the order in which they were added, by so many threads side by side."""

    def __init__(self, threads: int) -> None:
        self._rows: list[list[int]] = [[] for _ in range(threads)]
        self._kept: list[Any] = []
        self._count = array("q", [0])

    def add(self, works: Sequence[Work]) -> None:
        """What `launch_together` does of these, kernels that need no numba; the caller keeps tensors alive."""
        busy = [work for work in works if work[1]]
        threads = min(len(self._rows), max((tasks for _, tasks, _ in busy), default=0))
        for number, (kernel, tasks, args) in enumerate(busy):
            assert isinstance(kernel, Kernel)
            words = machine_code.words(0, 0, *args)
            self._kept.append(kernel)
            for thread, rows in enumerate(self._rows):
                first, last = share_of(tasks, thread, threads) if thread < threads else (0, 0)
                own = words[:]
                own[0], own[1] = first, last
                self._kept.append(own)
                entry = ctypes.cast(kernel.entry, ctypes.c_void_p).value  # type: ignore[arg-type]
                rows += [entry or 0 if first < last else 0, own.buffer_info()[0], number + 1 == len(busy)]

    def finish(self) -> None:
        """Nothing is added any more."""
        lists = [array("q", rows) for rows in self._rows]
        shared = self._count.buffer_info()[0], len(lists)
        self._words = [array("q", [one.buffer_info()[0], len(one) // 3, *shared]) for one in lists]
        self._kept += lists

    def run(self, helpers: ThreadPoolExecutor | None) -> None:
        """All of it, on the calling thread and on as many helpers as there are threads more.

        Raises MemoryError.
        """
        entry = _entry()
        assert entry is not None  # see `usable`
        mine, *others = (words.buffer_info()[0] for words in self._words)
        self._count[0] = 0
        waiting = [helpers.submit(entry, words) for words in others] if helpers else []
        failed = entry(mine)
        for one in waiting:
            failed |= one.result()
        if failed:
            raise MemoryError("no memory for a kernel's scratch")


def usable() -> bool:
    """Whether LLVM is here and the kernels' code fits."""
    return machine_code.usable() and _entry() is not None


@functools.cache
def _entry() -> Callable[[int], int] | None:
    return machine_code.entry_of("recording.gang", lzma.compress(_CODE.encode()), cache_folder())
