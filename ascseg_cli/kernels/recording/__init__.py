"""A pass of the compiled CPU kernels, recorded once and replayed: Python does nothing between its launches.

While a function is recorded, tensors that depend on its argument lie in memory of the recording's own, and each
kernel's arguments are kept as they were passed. What torch itself does with such tensors is kept, too, if it is
one of a few operators; anything else can't be recorded. A replay is all kernels in one call for each thread
(`gang.py`), interrupted where torch has something to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ascseg_cli.kernels.compiled import launches_told
from ascseg_cli.kernels.recording.gang import Gang, usable
from ascseg_cli.kernels.recording.recorder import Recorder, UnrecordableError

__all__ = ["Recording", "UnrecordableError", "usable"]


class Recording:
    """What a function of a float32 tensor did with one, for others of its shape.

    Its weights must stay where and as they are, and the number of threads as it is; one thread at a time replays
    it. No gradients. Raises UnrecordableError.
    """

    @torch.inference_mode()
    def __init__(self, run: Callable[[Tensor], Tensor], x: Tensor) -> None:
        recorder = Recorder()
        self._taken = recorder.pool.tensor(x)  # never let go, so its block is nobody else's
        self._taken.copy_(x)
        with recorder, launches_told(recorder.launched):
            y = run(self._taken)
        if not recorder.pool.holds(y):
            raise UnrecordableError("a result that nothing made")
        self._pool, self._kept, self._steps = recorder.pool, recorder.kept, recorder.steps
        self._result = self._pool.alias(y)
        for step in self._steps:
            if isinstance(step, Gang):
                step.finish()
        self._threads, self._process = torch.get_num_threads(), 0
        self._helpers: ThreadPoolExecutor | None = None
        expected = y.clone()
        self._pool.spoil()
        if not torch.equal(self(x).nan_to_num(), expected.nan_to_num()):
            raise UnrecordableError("a replay that gives something else")

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """run(x); the next call overwrites it."""
        self._taken.copy_(x)
        helpers = self._helping()
        for step in self._steps:
            if isinstance(step, Gang):
                step.run(helpers)
            else:
                step()
        return self._result

    def _helping(self) -> ThreadPoolExecutor | None:
        """Threads of the recording's own: they wait for each other, so none may be busy elsewhere."""
        if self._process != os.getpid():  # a forked child has no threads but one
            self._process = os.getpid()
            others = self._threads - 1
            self._helpers = ThreadPoolExecutor(others, "ascseg-replay") if others else None
        return self._helpers
