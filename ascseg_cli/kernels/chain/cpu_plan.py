"""The passes of a chain as `cpu_kernels.run` reads them: code, and numbers in the order in which they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ascseg_cli.kernels import machine_code
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.plan import Draft, convolution_draft, drafts_of
from ascseg_cli.kernels.machine_code import Memory


@dataclass
class Pass:
    """One pass: its code and numbers, and how many channels it reads and writes."""

    code: Memory
    numbers: Memory
    resize_in: int
    resize_out: int
    channels: int
    combines: bool


def passes(steps: Sequence[nn.Module], channels: int, others: int) -> list[Pass]:
    """The passes of a chain on so many channels, with so many of its other operand. Raises ShapeError."""
    return [_finished(draft) for draft in drafts_of(steps, channels, others)]


def convolution(weight: Tensor, bias: Tensor | None, dilation: int, groups: int) -> Pass:
    """The pass of one convolution over neighbours: weight (out, in / groups, k, k), groups 1, out, or in."""
    return _finished(convolution_draft(weight, bias, dilation, groups))


def _in_fours(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Blocks of four outputs: their biases, then their weights of each input and tap, output last."""
    table = np.zeros((-(-len(bias) // 4) * 4, 1 + weight[0].size))
    table[: len(bias), 0], table[: len(bias), 1:] = bias, weight.reshape(len(bias), -1)
    return table.reshape(-1, 4, table.shape[1]).transpose(0, 2, 1).ravel()


def _finished(draft: Draft) -> Pass:
    numbers: list[np.ndarray] = []
    length = 0
    for step, part in zip([[k.POINTWISE, 0, 0, 0], *draft.within], [[], *draft.parts]):
        if part or not numbers:
            if not numbers:
                part = _over_numbers(draft)
            elif step[0] == k.POINTWISE:
                part = [_in_fours(*part)]
            step[3] = length
            numbers += part or [np.zeros(0)]
            length += sum(len(p) for p in part)
    widest = -(-max(draft.widest, draft.into, draft.over_out) // 4) * 4
    head = [draft.resize_in, draft.over, draft.size, draft.dilation, draft.into, draft.over_out]
    head += [0, draft.resize_out, widest, machine_code.roomy()]
    code = np.array([*head, *(n for step in draft.within for n in step)], np.int64)
    with np.errstate(over="ignore"):  # of weights so large the results aren't numbers, which is said of each image
        table = np.concatenate(numbers).astype(np.float32)
    combines = any(step[0] >= k.ADD for step in draft.within)
    return Pass(Memory.of(code), Memory.of(table), draft.resize_in, draft.resize_out, draft.channels, combines)


def _over_numbers(draft: Draft) -> list[np.ndarray]:
    if draft.over == k.DENSE:
        return [_in_fours(*draft.convolution)]
    if draft.over == k.GROUPED:
        weight, bias = draft.convolution
        return [np.concatenate([bias[:, None], weight.reshape(len(bias), -1)], 1).ravel()]
    return [np.zeros(0)]
