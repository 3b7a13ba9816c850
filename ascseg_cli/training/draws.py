"""Random numbers for a batch's augmentation: fixed by a seed, drawn on the batch's device, without waiting for it.

Every change has a stream of its own, so that switching one on or off leaves the others as they were. A batch may
be divided among processes: numbers are drawn for the whole of it and each process keeps those of its own images.
"""

from __future__ import annotations

import hashlib
import math
import random
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Range = tuple[float, float]


class Draws:
    """The numbers of one change to one batch.

    images  in the whole batch
    own     which of them this process holds, consecutive
    """

    def __init__(self, generator: torch.Generator, seed: int, images: int, own: range) -> None:
        self.generator, self.seed, self.images, self.own = generator, seed, images, own

    def begin(self, name: str) -> Draws:
        """The numbers of a change that all images take part in."""
        return Draws(self.generator, self._restart(name), self.images, self.own)

    def chosen(self, name: str, chance: float) -> tuple[slice, Draws] | None:
        """Those of this process's images that a change befalls, each by `chance`, and its numbers for them.

        Neighbours, so that they are a view: a batch's order is random anyway. None where there are none.
        """
        seed = self._restart(name)
        dice = random.Random(seed)
        count = sum(dice.random() < chance for _ in range(self.images))
        first = dice.randrange(self.images - count + 1)
        start, stop = max(first, self.own.start), min(first + count, self.own.stop)
        if start >= stop:
            return None
        rows = slice(start - self.own.start, stop - self.own.start)
        return rows, Draws(self.generator, seed, count, range(start - first, stop - first))

    def between(self, *ranges: Range, each: int = 1) -> tuple[Tensor, ...]:
        """For each range a tensor (b, each, 1, 1), evenly between its ends."""
        low, width = _limits(ranges, self.generator.device)
        numbers = torch.addcmul(low, self.uniform(each, len(ranges)), width)
        return tuple(numbers[..., None, None].unbind(2))

    def factors(self, *most: float, each: int = 1) -> tuple[Tensor, ...]:
        """For each figure a tensor (b, each, 1, 1) between 1/most and most, as often below 1 as above."""
        logs = self.between(*((-math.log(one), math.log(one)) for one in most), each=each)
        return tuple(one.exp() for one in logs)

    def uniform(self, *shape: int) -> Tensor:
        """(b, *shape) in 0..1."""
        return self._kept(torch.rand(self.images, *shape, **self._how()))

    def normal(self, *shape: int) -> Tensor:
        """(b, *shape), normally distributed."""
        return self._kept(torch.randn(self.images, *shape, **self._how()))

    def number(self, low: float, high: float) -> float:
        """One number for all images of the change, known to the CPU."""
        return random.Random(self.seed + 1).uniform(low, high)

    def _how(self) -> dict[str, Any]:
        return {"generator": self.generator, "device": self.generator.device, "dtype": torch.float32}

    def _restart(self, name: str) -> int:
        digest = hashlib.sha256(f"{name} {self.seed}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little") >> 1
        self.generator.manual_seed(seed)
        return seed

    def _kept(self, numbers: Tensor) -> Tensor:
        return numbers[self.own.start : self.own.stop]


@lru_cache
def _limits(ranges: tuple[Range, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Lower ends and widths, put on the device once."""
    low, high = torch.tensor(ranges, dtype=torch.float32).T
    return low.to(device), (high - low).to(device)


@lru_cache(8)
def plane(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the pixels' centres lie: rows (h, 1) and columns (1, w), from -1 to 1 between the picture's edges."""
    rows, columns = ((torch.arange(n, device=device, dtype=torch.float32) * 2 + 1) / n - 1 for n in (h, w))
    return rows[:, None], columns[None]
