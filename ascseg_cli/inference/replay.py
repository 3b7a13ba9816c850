"""A network's passes on a GPU, recorded once for each shape and replayed: a hundred launches become one.

A pass of few images is bound by how fast Python can launch kernels; a replayed CUDA graph isn't.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_SHAPES = 4  # recorded at once; each holds the memory of a pass


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    input: Tensor
    output: Tensor


class Replay:
    """Calls `run`, a function of one CUDA tensor, through a recording where its shape has come before.

    The first pass of a shape runs as it is, since kernels are compiled and tuned in it; the second is recorded.
    Weights are read where they lay when recorded, so they may change in place but not move.

    ahead  called before the first pass of a shape with a function that does the pass: compiles what it needs
    """

    def __init__(
        self, run: Callable[[Tensor], Tensor], ahead: Callable[[Callable[[], Any]], Any] | None = None
    ) -> None:
        self._run, self._ahead = run, ahead
        self._recordings: OrderedDict[tuple[object, ...], _Recording | None] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        """run(x); the result is overwritten by the next call of the same shape."""
        key = (*x.shape, x.dtype, x.device)
        if key not in self._recordings:
            self._recordings[key] = None
            while len(self._recordings) > MOST_SHAPES:
                self._recordings.popitem(last=False)
            if self._ahead:
                self._ahead(lambda: self._run(x))
            return self._run(x)
        recording = self._recordings[key] or self._record(x)
        self._recordings[key] = recording
        self._recordings.move_to_end(key)
        recording.input.copy_(x)
        recording.graph.replay()
        return recording.output

    def forget(self) -> None:
        """Let go of all recordings and their memory."""
        self._recordings.clear()
        torch.cuda.empty_cache()

    def _record(self, x: Tensor) -> _Recording:
        taken = torch.empty_like(x)
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(x.device)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
            output = self._run(taken)
        return _Recording(graph, taken, output)
