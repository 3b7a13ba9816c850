"""What happens while a function is recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ascseg_cli.kernels.chain.cpu import addition
from ascseg_cli.kernels.compiled import Kernel, Work, launch_together
from ascseg_cli.kernels.machine_code import Memory
from ascseg_cli.kernels.recording.gang import Gang
from ascseg_cli.kernels.recording.pool import Pool

Step = Gang | Callable[[], object]

_aten: Any = torch.ops.aten
_EMPTY = (_aten.new_empty.default, _aten.empty_like.default)
_INTO = {  # operators of torch that may be part of a pass -> the same into a given tensor
    _aten.add.Tensor: _aten.add.out,
    _aten.amax.default: _aten.amax.out,
    _aten.mean.dim: _aten.mean.out,
    _aten.sigmoid.default: _aten.sigmoid.out,
}


class UnrecordableError(Exception):
    """The function does something that can't be replayed."""


class Recorder(TorchDispatchMode):
    """Inside, what depends on tensors of the pool comes into the pool, and its making is a step.

    Whoever launches kernels must tell `launched`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.steps: list[Step] = []
        self.kept: list[Any] = []  # what steps read and the pool doesn't hold

    def launched(self, works: Sequence[Work]) -> None:
        """Kernels that run now."""
        for kernel, tasks, args in works:
            if tasks and not (isinstance(kernel, Kernel) and kernel.entry):
                raise UnrecordableError("a kernel that numba runs")
            owners = [argument.owner for argument in args if isinstance(argument, Memory)]
            self.kept += [one for one in owners if not (isinstance(one, Tensor) and self.pool.holds(one))]
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Gang):
            self.steps.append(last := Gang(torch.get_num_threads()))
        last.add(works)

    def _done(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operator of torch, instead of which this is called."""
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not any(map(self.pool.holds, given)):
            self.kept += made  # of weights, which stay
            return result
        mutates = func._schema.is_mutable
        if made and not mutates and all(map(self.pool.holds, made)):
            return result  # another view
        if func in _EMPTY and result.dtype == torch.float32:
            return self.pool.tensor(result) if result.numel() else result
        if func in _INTO and result.dtype == torch.float32 and result.numel():
            return self._step(func, args, kwargs or {}, result)
        raise UnrecordableError(str(func))

    def _step(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Tensor:
        y = self.pool.tensor(result)
        if func is _aten.add.Tensor and len(args) == 2 and not kwargs and isinstance(args[1], Tensor):
            work = addition(args[0], args[1], y)
            if work:
                launch_together([work])
                return y
        y.copy_(result)
        known = tree_map(lambda leaf: self._known(leaf), (args, kwargs))
        self.steps.append(functools.partial(_INTO[func], *known[0], **known[1], out=self.pool.alias(y)))
        return y

    def _known(self, leaf: Any) -> Any:
        return self.pool.alias(leaf) if isinstance(leaf, Tensor) and self.pool.holds(leaf) else leaf


# Not in the class, where torch would wrap it, and load its compiler for that in two seconds
Recorder.__torch_dispatch__ = Recorder._done  # type: ignore[method-assign,assignment]
