"""Maximum plus mean on the GPU: one pass over the image, and one over its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.channel_peak import reference
from ascseg_cli.kernels.cuda import kernel

_SOURCE = Path(__file__).with_name("peak.cu")
_THREADS = 256
_PIXELS = 32  # of a thread, at most, where that leaves enough blocks


def channel_peak(x: Tensor) -> Tensor:
    """See `kernels.channel_peak.channel_peak`. Float32, and bfloat16 where no gradient is wanted."""
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes float32 and bfloat16", "use --backend auto")
    if x.numel() == 0 or x.shape[1] > _THREADS:
        return reference.channel_peak(x)
    return _Peak.apply(x.contiguous(memory_format=torch.channels_last))


class _Peak(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        pixels, each = h * w, _THREADS // c  # pixels at a time
        blocks = max(1, min(64, -(-pixels // (each * _PIXELS))))
        if b * blocks < 64:
            blocks = max(1, min(64, -(-pixels // (each * 4))))
        highest, places = (
            x.new_empty(b, blocks, c, dtype=torch.float32),
            x.new_empty(b, blocks, c, dtype=torch.int32),
        )
        sums = x.new_empty(b, blocks, c, dtype=torch.float64)
        half = int(x.dtype == torch.bfloat16)
        parts = kernel(_SOURCE, "peak_parts", HALF=half)
        parts((blocks, b), each * c, x, pixels, c, highest, places, sums, shared=each * c * 16)
        y, found = x.new_empty(b, c, 1, 1), x.new_empty(b, c, dtype=torch.int32)
        kernel(_SOURCE, "peak_whole", HALF=half)((b * c,), 32, highest, places, sums, pixels, c, blocks, y, found)
        ctx.save_for_backward(found)
        ctx.size = x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        b, c, h, w = ctx.size
        dx = dy.new_empty_strided((b, c, h, w), (h * w * c, 1, w * c, c))
        blocks = max(1, min(512 // min(b, 512), -(-h * w * c // _THREADS)))
        run = kernel(_SOURCE, "peak_gradient", HALF=0)
        run((blocks, b), _THREADS, dy.contiguous(), found, h * w, c, dx)
        return dx
