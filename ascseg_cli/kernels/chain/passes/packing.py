"""The passes of a chain as `passes.cu` reads them: a branch's code, and its numbers with the outputs innermost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.plan import Draft

# What tensor cores multiply: bfloat16; float32 as sums of two such; or bfloat16 in a whole pass of `fragments.cu`
HALVES, PAIRS, FRAGMENTS = 1, 2, 3
PLANE = {0: 4, HALVES: 8, PAIRS: 4, FRAGMENTS: 8}  # channels that lie together in a tile

Step = tuple[int, int, int, int]  # kind, channels before and after, where its numbers are


@dataclass(frozen=True)
class Branch:
    """What is done to one image within a pass, from its tile to its pixels.

    over, size, dilation  what happens over neighbours
    into, over_out        channels before and after that
    channels              channels at the end
    numbers               a multiple of four
    """

    over: int
    size: int
    dilation: int
    into: int
    over_out: int
    channels: int
    steps: tuple[Step, ...]
    numbers: np.ndarray

    @property
    def border(self) -> int:
        return self.dilation * (self.size - 1) // 2

    @property
    def widest(self) -> int:
        return max(self.over_out, *(step[2] for step in self.steps), 1)

    @property
    def unit(self) -> int:
        """The most numbers that must be in shared memory at once, where not all can be."""
        pointwise = [4 * padded(out) for kind, _, out, _ in self.steps if kind == k.POINTWISE]
        return max([self.size * min(4, self.into) * padded(self.over_out), *pointwise])

    @property
    def crosses(self) -> bool:
        """Does a channel of the result depend on others of the same pixel after the convolution?"""
        mixed = any(kind in (k.POINTWISE, k.NORM) or into != out for kind, into, out, _ in self.steps)
        return mixed or self.over != k.DENSE


def padded(c: int) -> int:
    """How many numbers a row of c outputs takes in `passes.cu`."""
    return c if c <= 4 else -(-c // 8) * 8


def branch_of(draft: Draft, tensor: int = 0) -> Branch:
    """A draft in the order of `passes.cu`.

    A pass that begins with a 1×1 convolution has that over neighbours, but in `fragments.cu`.

    tensor  for tensor cores, where not 0: dense convolutions by numbers of that kind
    """
    over, convolution, out, steps = (
        draft.over,
        draft.convolution,
        draft.over_out,
        list(zip(draft.within, draft.parts)),
    )
    if over == k.ALONE and steps and steps[0][0][0] == k.POINTWISE and tensor != FRAGMENTS:
        (_, _, out, _), convolution = steps.pop(0)
        over = k.DENSE
    numbers = [_tensor_numbers(tensor, over, convolution) if tensor else _over_numbers(over, convolution)]
    code: list[Step] = []
    for (kind, before, after, _), part in steps:
        code.append((kind, before, after, sum(map(len, numbers))))
        numbers.append(_step_numbers(kind, part, tensor))
    return Branch(
        over, draft.size, draft.dilation, draft.into, out or draft.into, draft.channels, tuple(code),
        np.concatenate([part.astype(np.float32) for part in numbers]),
    )  # fmt: skip


def slices_of(draft: Draft, count: int) -> list[Draft]:
    """A draft as so many of equal shape, each with some of the outputs; none of its steps may cross channels."""
    each = draft.channels // count
    return [_slice(draft, slice(i * each, (i + 1) * each)) for i in range(count)]


def _slice(draft: Draft, of: slice) -> Draft:
    channels = of.stop - of.start
    within, parts = [list(step) for step in draft.within], draft.parts
    if draft.over == k.ALONE and within:  # a 1×1 convolution first
        parts = [[number[of] for number in parts[0]], *parts[1:]]
    for i, step in enumerate(within):
        step[1] = step[1] if step[0] == k.POINTWISE else channels
        step[2] = channels
        if step[0] == k.AFFINE:
            parts = [*parts[:i], [parts[i][0].reshape(-1, 2)[of].ravel()], *parts[i + 1 :]]
    convolution = [number[of] for number in draft.convolution]
    over_out = channels if draft.over_out else 0
    return replace(
        draft, channels=channels, convolution=convolution, over_out=over_out, within=within, parts=parts
    )


def _fours(numbers: np.ndarray) -> np.ndarray:
    return np.pad(numbers.ravel(), (0, -numbers.size % 4))


def row(numbers: np.ndarray) -> np.ndarray:
    """Numbers of the channels in `passes.cu`'s layout."""
    return _fours(np.pad(numbers, (0, padded(len(numbers)) - len(numbers))))


def _over_numbers(over: int, convolution: Sequence[np.ndarray]) -> np.ndarray:
    if over == k.DENSE:
        return _dense(*convolution)
    if over != k.GROUPED:
        return np.zeros(0)
    weight, bias = convolution
    out, each = weight.shape[:2]
    taps = weight.transpose(3, 2, 0, 1)  # (out, each, row, column) -> (column, row, out, each)
    if each == 1:
        taps = np.pad(taps, ((0, 0), (0, 0), (0, -out % 4), (0, 0)))
    return np.concatenate([_fours(bias), _fours(taps)])


def _dense(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Biases, then weights as [plane of inputs][column][row][input of the plane][output]."""
    out, into, size, _ = weight.shape
    inputs = min(into, 4)
    weight = np.pad(weight, ((0, padded(out) - out), (0, -into % inputs), (0, 0), (0, 0)))
    weight = weight.reshape(padded(out), -1, inputs, size, size).transpose(1, 4, 3, 2, 0)
    units = weight.reshape(len(weight) * size, -1)
    units = np.pad(units, ((0, 0), (0, -units.shape[1] % 4)))
    return np.concatenate([row(bias), units.ravel()])


def _tensor_numbers(tensor: int, over: int, convolution: Sequence[np.ndarray]) -> np.ndarray:
    if over == k.DENSE and tensor == FRAGMENTS and convolution[0].shape[:2] == (1, 2):
        return _narrow(*convolution)
    if over == k.DENSE:
        return _fragments(tensor, *convolution)
    if over != k.GROUPED:
        return np.zeros(0)
    weight, bias = convolution
    return np.concatenate([_eighth(weight[i : i + 8], bias[i : i + 8]) for i in range(0, len(bias), 8)])


def _eighth(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Up to eight outputs with inputs of their own, (out, each, k, k), as a dense convolution of eight outputs."""
    out, each, size, _ = weight.shape
    dense = np.zeros((8, 8, each, size, size))
    dense[range(out), range(out)] = weight
    return _fragments(FRAGMENTS, dense.reshape(8, -1, size, size), np.pad(bias, (0, 8 - out)))


def _fragments(tensor: int, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Biases, then weights as [two planes at a column][tap][8 outputs][thread of a warp], a float64 for each.

    A plane is eight channels of bfloat16, or four and what bfloat16 leaves of them. Two planes and eight outputs
    are a matrix B: thread 4j + i holds rows 2i, 2i + 1, 2i + 8 and 2i + 9 of its column j. Both halves of a plane
    of four meet the same weights, so there threads 4j + i and 4j + i + 2 share them, high parts first, then low.
    """
    out, into, size, _ = weight.shape
    plane = PLANE[tensor]
    table = np.pad(weight, ((0, -out % 8), (0, -into % plane), (0, 0), (0, 0)))
    table = table.transpose(2, 3, 1, 0).reshape(size, -1, len(table))  # (out, in, row, col) -> (row, col·in, out)
    table = np.pad(table, ((0, 0), (0, -table.shape[1] % (2 * plane)), (0, 0)))
    return np.concatenate([row(bias).astype(np.float32), _held(tensor, table)])


def _held(tensor: int, table: np.ndarray) -> np.ndarray:
    """Weights (taps, depth, outputs) as a warp's threads hold them: see `_fragments`."""
    taps, _, out = table.shape
    parts = table.reshape(taps, -1, 2, PLANE[tensor] // 2, 2, out // 8, 8).transpose(1, 0, 5, 6, 3, 2, 4)
    if tensor == PAIRS:
        high = _rounded(parts)
        parts = np.stack([high, parts - high], 5)
    return _bfloat16(parts).view(torch.int16).numpy().ravel().view(np.float32)


def _bfloat16(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, np.float32)).bfloat16()


def _rounded(numbers: np.ndarray) -> np.ndarray:
    """Numbers to the nearest that bfloat16 knows, in float64."""
    return _bfloat16(numbers).double().numpy()


def _narrow(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One output of two channels, (1, 2, k, k): bias, then for each line of the tile [high, low][warp's thread].

    They are of a matrix whose rows are (column, channel) and whose columns are the eight lines that see that line.
    """
    size = weight.shape[2]
    table = np.zeros((size + 7, 8, 2, 8))
    for line in range(8):
        table[line : line + size, :size, :, line] = weight[0].transpose(1, 2, 0)  # (row, column, channel)
    table = table.reshape(-1, 16, 8)
    high = _rounded(table)
    both = np.stack([high, table - high], 1).reshape(-1, 16, 8)
    return np.concatenate([np.pad(bias, (0, 7)).astype(np.float32), _held(FRAGMENTS, both)])


def _in_two_parts(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A 1×1 convolution of the inputs' high parts, their low parts, and their high parts again, in bfloat16."""
    weight = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 8), (0, 0), (0, 0)))
    high = _rounded(weight)
    return _fragments(FRAGMENTS, np.concatenate([high, high, weight - high], 1), bias)


def _step_numbers(kind: int, part: Sequence[np.ndarray], tensor: int) -> np.ndarray:
    if kind == k.POINTWISE and tensor == FRAGMENTS:
        return _in_two_parts(*part)
    if kind == k.POINTWISE:
        return _dense(*part)
    if kind == k.AFFINE:
        return np.concatenate([row(column) for column in part[0].reshape(-1, 2).T])
    if kind == k.NORM:
        eps, pairs = part[0][:1], part[0][1:]
        return np.concatenate([_fours(eps), *(row(column) for column in pairs.reshape(-1, 2).T)])
    return np.zeros(0)
