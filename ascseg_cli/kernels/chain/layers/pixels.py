"""How the GPU's kernels see and share out images: channels-last pixels, a few channels a thread (`pixels.cuh`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import Normalisation
from ascseg_cli.kernels.cuda import Argument, kernel

_SOURCE = Path(__file__).with_name("sums.cu")
_BLOCKS = 528  # four for each multiprocessor of an H100
_STEPS = 32  # pixels a thread adds up in float32
_SMALLEST, _USUAL, _LARGEST = 64, 256, 512  # threads of a block
ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2, "sigmoid": 3}  # as in device.cuh


@dataclass(frozen=True)
class Pixels:
    """An image in channels-last memory: number k of pixel p lies at tensor.data_ptr() + 4·(p·pitch + k).

    tensor  (b, c, h, w)
    """

    tensor: Tensor
    pitch: int

    @classmethod
    def of(cls, x: Tensor) -> Pixels:
        """x itself if its memory is so, else a copy. A size of 1 leaves its stride without a meaning."""
        b, c, h, w = x.shape
        image, channel, row, column = x.stride()
        pitch = column if w > 1 else row if h > 1 else image if b > 1 else c
        wanted = ((c, channel, 1), (w, column, pitch), (h, row, w * pitch), (b, image, h * w * pitch))
        if x.numel() and (pitch < c or any(size > 1 and stride != want for size, stride, want in wanted)):
            return cls(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), c)
        return cls(x, pitch)

    @property
    def quads(self) -> bool:
        """Whether four channels can be loaded at once."""
        return self.tensor.shape[1] % 4 == 0 and self.pitch % 4 == 0 and self.tensor.data_ptr() % 16 == 0


def fresh(like: Tensor, b: int, c: int, h: int, w: int) -> Tensor:
    """An uninitialised channels-last image, (b, c, h, w)."""
    return like.new_empty_strided((b, c, h, w), (h * w * c, 1, w * c, c))


def width(*images: Pixels | None) -> int:
    """How many channels a thread can take at once of all these images: 4 or 1."""
    return 4 if all(image.quads for image in images if image) else 1


@dataclass(frozen=True)
class Launch:
    """Blocks for `images` times `pixels` pixels of `c` channels, `vec` a thread.

    Few enough that their sums are soon added, and so many that no thread has more than 32 pixels.
    """

    images: int
    pixels: int
    c: int
    vec: int

    @property
    def threads(self) -> int:
        lanes = self.c // self.vec
        if lanes > _LARGEST:
            raise ShapeError(f"{self.c} channels are too many for one block of threads (at most {_LARGEST} units)")
        threads = _USUAL if lanes <= _USUAL else _LARGEST
        while threads > _SMALLEST and threads // 2 >= lanes and self.images * self._steps(threads) < _BLOCKS // 4:
            threads //= 2
        return threads

    @property
    def grid(self) -> tuple[int, int, int]:
        steps = self._steps(self.threads)
        few = min(steps, max(_BLOCKS // max(self.images, 1), 1))
        return max(few, -(-steps // _STEPS)), 1, self.images

    def _steps(self, threads: int) -> int:
        return -(-self.pixels // (threads // (self.c // self.vec)))

    @property
    def rows(self) -> int:
        """Blocks, that is rows of partial sums."""
        return self.grid[0] * self.grid[2]

    @property
    def scratch(self) -> int:
        """Bytes of shared memory with which a block adds up two sums a channel."""
        numbers = 2 * self.threads * self.vec
        return 4 * numbers + 8 * max(self.threads, 2 * self.c) + 8


def norm_arguments(norm: Normalisation | None) -> tuple[Argument, ...]:
    """Statistics, weight, bias and eps for a kernel."""
    if norm is None:
        return None, None, None, 0.0
    return norm.statistics, norm.weight, norm.bias, float(norm.eps)


def norm_of(
    statistics: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Normalisation | None:
    """What `norm_parts` took apart."""
    if statistics is None:
        return None
    assert weight is not None
    assert bias is not None
    return Normalisation(statistics.contiguous(), weight.contiguous(), bias.contiguous(), eps)


def norm_parts(norm: Normalisation | None) -> tuple[Tensor | None, Tensor | None, Tensor | None, float]:
    """A norm as an autograd function takes it: tensors, and eps."""
    return (norm.statistics, norm.weight, norm.bias, norm.eps) if norm else (None, None, None, 0.0)


def float32(*tensors: Tensor | None) -> None:
    """Raises ShapeError unless all are float32."""
    for t in tensors:
        if t is not None and t.dtype != torch.float32:
            raise ShapeError(f"x is {t.dtype}; the gpu backend takes torch.float32", "use --backend auto")


def finished(shares: Tensor, images: int, blocks: int) -> Tensor:
    """Sums of every block, (images · blocks, numbers) float64 -> (images, numbers) float32."""
    numbers = shares.shape[1]
    sums = shares.new_empty(images, numbers, dtype=torch.float32)
    kernel(_SOURCE, "finish_sums")((numbers, images), 128, shares, blocks, numbers, sums, shared=32)
    return sums
