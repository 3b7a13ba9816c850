"""From chains to passes: what runs in one launch, one after another, and side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.kernels.chain import Chain
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.passes.packing import Branch, branch_of, row, slices_of
from ascseg_cli.kernels.chain.plan import Draft, drafts_of

_REGISTERS = 32  # channels that `fragments.cu` has room for


@dataclass
class Pass:
    """Drafts that read the same image, resized alike, and write side by side; one launch."""

    drafts: list[Draft]
    others: int
    enter: list[np.ndarray] = field(default_factory=list)  # factors and summands of the image, if any
    carries: bool = False  # each draft but the first adds the result of the one before; only the last is written
    tables: dict[tuple[int, int], tuple[list[Branch], Tensor]] = field(default_factory=dict)
    ways: dict[Any, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return self.drafts[-1].channels if self.carries else sum(draft.channels for draft in self.drafts)

    @property
    def dense(self) -> bool:
        """Are all convolutions such as tensor cores do well?"""
        return all(d.over == k.DENSE and _suits_tensor_cores(d) for d in self.drafts)

    @property
    def in_fragments(self) -> bool:
        """Can all of it be done in the registers of tensor cores?"""
        return self.drafts[0].resize_out != k.DOUBLE and all(map(_fits_fragments, self.drafts))

    def table(self, slices: int, tensor: int, device: torch.device) -> tuple[list[Branch], Tensor]:
        """The branches, and all numbers on the device; those of one slice stand for all."""
        if (slices, tensor) not in self.tables:
            drafts = self.drafts if slices == 1 else slices_of(self.drafts[0], slices)
            branches = [branch_of(draft, tensor) for draft in drafts]
            rows = [row(numbers).astype(np.float32) for numbers in self.enter]
            numbers = torch.from_numpy(np.concatenate([*(branch.numbers for branch in branches), *rows]))
            self.tables[slices, tensor] = branches if slices == 1 else branches[:1], numbers.to(device)
        return self.tables[slices, tensor]


@dataclass
class Lane:
    """Passes one after another whose result takes a place among the output's channels."""

    passes: list[Pass]
    first: int

    @property
    def channels(self) -> int:
        return self.passes[-1].channels


def _suits_tensor_cores(draft: Draft) -> bool:
    return draft.size > 1 and draft.into > 2 and draft.over_out > 3


def _fits_fragments(draft: Draft) -> bool:
    """Has `fragments.cu` room for it, and does the other operand, if any, have as many channels?"""
    narrow = (draft.into, draft.over_out, draft.dilation) == (2, 1, 1) and draft.size in (3, 5, 7)
    if narrow and all(step[0] != k.POINTWISE for step in draft.within):
        return draft.widest <= _REGISTERS
    over = {
        k.DENSE: _suits_tensor_cores(draft),
        k.GROUPED: draft.into == draft.over_out or (draft.into == 4 * draft.over_out and draft.over_out % 8 == 0),
    }.get(draft.over, draft.into <= _REGISTERS)
    alike = all(before == after for kind, before, after, _ in draft.within if kind >= k.ADD)
    return over and alike and max(draft.over_out, draft.widest) <= _REGISTERS


# ---- from chains -------------------------------------------------------------------------------------------


def lanes_of(chains: Sequence[Chain], channels: int, others: int) -> list[Lane]:
    drafted = [_doubling(drafts_of(steps, channels, others)) for steps in chains]
    lanes: list[Lane] = []
    first = 0
    for _, group in itertools.groupby(enumerate(drafted), lambda item: _beginning(*item)):
        lanes.append(Lane(_together([drafts for _, drafts in group], others), first))
        first += lanes[-1].channels
    return lanes


def lanes_in_turn(chains: Sequence[Chain], channels: int, others: int) -> list[Lane]:
    """One pass of all, or none where they can't be one: the first of the chains is what x goes through before."""
    (enter, *more), first = drafts_of(chains[0], channels, 0), drafts_of(chains[1], channels, 0)
    drafts = [first, *(drafts_of(steps, channels, first[-1].channels) for steps in chains[2:])]
    norm = [step[0] for step in enter.within] == [k.AFFINE] and (enter.over, enter.resize_in) == (k.ALONE, k.SAME)
    adds = [[step[0] for step in draft[0].within].count(k.ADD) for draft in drafts]
    simple = all(len(draft) == 1 and _stays(draft[0], first[-1].channels) for draft in drafts)
    if more or not (norm and simple and adds == [0] + [1] * (len(drafts) - 1)):
        return []
    factors = list(enter.parts[0][0].reshape(-1, 2).T)
    return [Lane([Pass([draft[0] for draft in drafts], 0, factors, carries=True)], 0)]


def _stays(draft: Draft, channels: int) -> bool:
    """Does it keep the size, end with so many channels, and combine with nothing but by Add?"""
    sizes = draft.resize_in == draft.resize_out == k.SAME and draft.channels == channels
    return sizes and all(step[0] <= k.ADD for step in draft.within)


def _doubling(drafts: list[Draft]) -> list[Draft]:
    """The same with fewer passes: one that only doubles joins the one before."""
    joined: list[Draft] = []
    for draft in drafts:
        doubles = _only_resizes(draft) and draft.resize_in == k.DOUBLE and draft.resize_out == k.SAME
        if joined and doubles and joined[-1].resize_out == k.SAME:
            joined[-1].resize_out = k.DOUBLE
        else:
            joined.append(draft)
    return joined


def _beginning(number: int, drafts: list[Draft]) -> tuple[Any, ...]:
    """What chains have in common that can run together: how they resize, and that nothing else follows."""
    resizing = tuple((draft.resize_in, draft.resize_out) for draft in drafts)
    simple = all(_only_resizes(draft) for draft in drafts[1:])
    return (*resizing, simple or number)


def _only_resizes(draft: Draft) -> bool:
    return draft.over == k.ALONE and not draft.within


def _together(drafted: list[list[Draft]], others: int) -> list[Pass]:
    first = Pass([drafts[0] for drafts in drafted], _combined(drafted[0][0], others))
    rest = drafted[0][1:]
    if len(drafted) > 1:
        rest = [Draft(first.channels, first.channels, draft.resize_in, draft.resize_out) for draft in rest]
    return [first, *(Pass([draft], _combined(draft, others)) for draft in rest)]


def _combined(draft: Draft, others: int) -> int:
    return others if any(step[0] >= k.ADD for step in draft.within) else 0
