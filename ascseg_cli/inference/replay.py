"""A network's passes, recorded once for each shape and replayed: Python does nothing between a hundred launches.

On a GPU a recording is a CUDA graph, on the CPU a list of compiled kernels (`kernels.recording`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ascseg_cli.kernels import recording

MOST_SHAPES = 4  # recorded at once; each holds the memory of a pass
MOST_NUMBERS = 3 * 512 * 512  # of an image on the CPU: larger passes gain little, and hold much memory

Pass = Callable[[Tensor], Tensor]


class Replay:
    """Calls `run`, a function of one tensor, through a recording where its shape has come before.

    The first pass of a shape runs as it is, since kernels are compiled and tuned in it; the second is recorded.
    Weights are read where they lay when recorded, so they may not move.

    record  makes of `run` and a tensor what replays it
    ahead   called before the first pass of a shape with a function that does the pass: compiles what it needs
    """

    def __init__(
        self,
        run: Pass,
        record: Callable[[Pass, Tensor], Pass],
        ahead: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        self._run, self._record, self._ahead = run, record, ahead
        self._recordings: OrderedDict[tuple[object, ...], Pass | None] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        """run(x); the result is overwritten by the next call of the same shape."""
        key = (*x.shape, x.dtype, x.device, torch.get_num_threads())
        if key not in self._recordings:
            self._recordings[key] = None
            while len(self._recordings) > MOST_SHAPES:
                self._recordings.popitem(last=False)
            if self._ahead:
                self._ahead(lambda: self._run(x))
            return self._run(x)
        replay = self._recordings[key] or self._record(self._run, x)
        self._recordings[key] = replay
        self._recordings.move_to_end(key)
        return replay(x)

    def forget(self) -> None:
        """Let go of all recordings and their memory."""
        self._recordings.clear()
        torch.cuda.empty_cache()


class ReplayOfEachThread(threading.local):
    """A `Replay` on the CPU for each thread that calls it, since a recording is for one thread at a time."""

    def __init__(self, run: Pass) -> None:
        self._replay = Replay(run, _cpu_recording)

    def __call__(self, x: Tensor) -> Tensor:
        """As `Replay`'s."""
        return self._replay(x)


class CudaRecording:
    """A CUDA graph of `run` on tensors of x's shape, in whose memory weights may change in place."""

    def __init__(self, run: Pass, x: Tensor) -> None:
        self._input = torch.empty_like(x)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(x.device)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # others may use the GPU meanwhile
            self._output = run(self._input)

    def __call__(self, x: Tensor) -> Tensor:
        """run(x); the next call overwrites it."""
        self._input.copy_(x)
        self._graph.replay()
        return self._output


def _cpu_recording(run: Pass, x: Tensor) -> Pass:
    """A recording of it; `run` itself where it would be too large or can't be made."""
    if x.numel() > MOST_NUMBERS or not recording.usable():
        return run
    try:
        return recording.Recording(run, x)
    except recording.UnrecordableError:
        return run
