"""The second half of a deformable convolution block on CUDA GPUs, in one kernel: how it is cut and launched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.deform_block import reference
from ascseg_cli.kernels.deform_depthwise.gpu_shares import Pixels

_SOURCE, _ON_TENSOR_CORES = Path(__file__).with_name("block.cu"), Path(__file__).with_name("tensor.cu")
_DTYPES = (torch.float32, torch.bfloat16)
_SHARED = 64 * 1024  # bytes: several blocks fit a multiprocessor
_LARGEST = 99 * 1024  # what every GPU grants a block
_BLOCKS = 128  # at least, or a smaller tile is better


@dataclass(frozen=True)
class _Cut:
    """A block's tile; the pixels of which a thread finds the offsets; in how many parts their sums are shared."""

    h: int
    w: int
    strip: int
    split: int
    threads: int

    def tiles(self, h: int, w: int) -> int:
        return -(-h // self.h) * -(-w // self.w)

    def shared(self, c: int) -> int:
        """Bytes, as `memory_of` in block.cu shares them out."""
        pixels, chunk = self.h * self.w, chunk_of(c)
        first = 9 * c + (c * c if c <= 64 else 0) + -(-self.split * pixels * 18 // 4) * 4
        return 4 * (first + max(((self.h + 2) * (self.w + 2) + 162) * chunk, pixels * (c + 4)))

    def constants(self, c: int) -> dict[str, int]:
        tile = {"TILE_H": self.h, "TILE_W": self.w, "STRIP": self.strip, "SPLIT": self.split}
        return {"C": c, "CHUNK": chunk_of(c), "THREADS": self.threads} | tile


CUTS = (_Cut(16, 16, 4, 1, 192), _Cut(8, 16, 2, 1, 192), _Cut(4, 8, 1, 3, 288), _Cut(2, 4, 1, 9, 224))


def chunk_of(c: int) -> int:
    """Channels whose weights are in shared memory at once."""
    return max(n for n in (4, 8, 12, 16) if c % n == 0)


def cut_for(b: int, c: int, h: int, w: int) -> _Cut:
    """The largest tile of which there are enough blocks, and room for several at once."""
    for cut in CUTS[:-1]:
        if b * cut.tiles(h, w) >= _BLOCKS and cut.shared(c) <= _SHARED:
            return cut
    return CUTS[-1]


def deform_block(p: Tensor, f: Tensor, m: Tensor | None, *weights: Tensor) -> Tensor:
    """See `kernels.deform_block.deform_block`; no gradients; c a multiple of 4. The result is channels-last."""
    b, c, h, w = p.shape
    if p.dtype not in _DTYPES or any(t.dtype != torch.float32 for t in weights):
        raise ShapeError(
            f"p is {p.dtype}, a weight {weights[0].dtype}; the gpu backend takes float32 or bfloat16 images, "
            "and float32 weights", "use --backend reference",
        )  # fmt: skip
    if c % 4:
        raise ShapeError(f"p has {c} channels; the gpu backend takes multiples of 4", "use --backend reference")
    if p.numel() == 0:
        return reference.deform_block(p, f, m, *weights)
    half = p.dtype == torch.bfloat16
    warps = warps_for(b, c, h, w) if half else None
    images = [*_in_parts(p, 8 if warps else 4).arguments, *_in_parts(f, 4).arguments]
    added = (None, 0) if m is None else _in_parts(m, 4).arguments
    e = p.new_empty(b, h, w, c).permute(0, 3, 1, 2)
    given = (*images, *added, *_laid_out(*weights), e, h, w)
    if warps:
        run = kernel(_ON_TENSOR_CORES, "deform_block", C=c, P_PITCH=given[1], WARPS=warps)
        run((_tiles(warps, h, w), 1, b), 32 * warps, given[0], *given[2:], shared=_tensor_memory(c, warps))
        return e
    cut = cut_for(b, c, h, w)
    run = kernel(_SOURCE, "deform_block", HALF=int(half), **cut.constants(c))
    run((cut.tiles(h, w), 1, b), cut.threads, *given, shared=cut.shared(c))
    return e


def warps_for(b: int, c: int, h: int, w: int) -> int | None:
    """Warps of a block on tensor cores; None where there are too few of such blocks, or no room for them."""
    if c % 8:
        return None
    fitting = (n for n in (8, 4) if _tensor_memory(c, n) <= _LARGEST and b * _tiles(n, h, w) >= _BLOCKS)
    return next(fitting, None)


def _tiles(warps: int, h: int, w: int) -> int:
    return -(-h // (2 * warps)) * -(-w // 16)


def _tensor_memory(c: int, warps: int) -> int:
    """Bytes, as `memory_of` in tensor.cu shares them out."""
    tile, weights = (2 * warps + 2) * 18 * (c + 4), (9 * 24 + c) * c + 9 * c
    return 4 * (tile + weights + warps * 32 * 18)


def _laid_out(
    offset_weight: Tensor, offset_bias: Tensor, weight: Tensor, balance_weight: Tensor, balance_bias: Tensor
) -> list[Tensor]:
    """The weights as the kernel reads them: (3, 3, c, 18), (18,), (c, 1, 3, 3), (1, 1, c, c), (c,)."""
    offset_weight, balance_weight = (t.permute(2, 3, 1, 0) for t in (offset_weight, balance_weight))
    dense = [t.contiguous() for t in (offset_weight, offset_bias, weight, balance_weight, balance_bias)]
    return [t if t.data_ptr() % 16 == 0 else t.clone() for t in dense]


def _in_parts(image: Tensor, channels: int) -> Pixels:
    """The image where every so many channels, which divide its own, can be read at once, else a copy."""
    pixels = Pixels.of(image)
    if pixels.divisible(channels):
        return pixels
    return Pixels.of(image.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2))
