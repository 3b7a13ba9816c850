"""The training loss on CUDA GPUs: one pass over the pixels forward, and enlarged maps that are never stored.

Backward, the gradients of enlarged maps are stored, then gathered: the same to the bit in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.cuda import kernel
from ascseg_cli.kernels.segmentation_loss import reference

_SOURCE = Path(__file__).with_name("loss.cu")
_THREADS, _STEPS = 256, 8  # pixels of a thread
_FINISHING = 1024  # threads of the one block that ends the sums

Maps = list[Tensor | None]


def segmentation_loss(low: Sequence[Tensor], target: Tensor) -> Tensor:
    """See `kernels.segmentation_loss.segmentation_loss`. Float32; gradients are bit-equal in every run."""
    if target.dtype != torch.float32:
        raise ShapeError(
            f"the target is {target.dtype}; the gpu backend takes torch.float32", "use --backend auto"
        )
    if target.numel() == 0:
        return reference.segmentation_loss(low, target)
    return _Loss.apply(target.contiguous(), *(z.contiguous() for z in low))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, *low: Tensor) -> Tensor:
        b, _, h, w = target.shape
        grid, heads = _grid(target), len(low)
        values = 1 + 3 * heads
        partials, sums = (target.new_empty(b, n, values, dtype=torch.float64) for n in (grid[0], 1))
        loss = target.new_empty(())
        run = kernel(_SOURCE, "loss_sums", HEADS=heads)
        run(grid, _THREADS, *_heads(low, h), target, partials, h, w, _STEPS, shared=8 * values * _THREADS // 32)
        finish = kernel(_SOURCE, "finish_loss", HEADS=heads)
        finish((1,), _FINISHING, partials, b, grid[0], float(h * w), sums, loss, shared=8 * _FINISHING // 32)
        ctx.save_for_backward(target, sums, *low)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        target, sums, *low = ctx.saved_tensors
        h, w = target.shape[2:]
        wanted = ctx.needs_input_grad[1:]
        large: Maps = [torch.empty_like(target) if want else None for want in wanted]
        heads = _heads(low, h)
        run = kernel(_SOURCE, "loss_gradients", HEADS=len(low))
        run(_grid(target), _THREADS, *heads, target, sums, dloss, *_four(large), h, w, _STEPS)
        same = [z.shape == target.shape for z in low]
        small: Maps = [torch.empty_like(z) if want and not s else None for z, want, s in zip(low, wanted, same)]
        if any(g is not None for g in small):
            gather = kernel(_SOURCE, "gather_gradients", HEADS=len(low))
            gather(_gather_grid(target, len(low)), _THREADS, *_four(large), *_four(small), *heads[4:], h, w)
        return None, *(d if s else g for d, g, s in zip(large, small, same))


def _grid(target: Tensor) -> tuple[int, int]:
    b, _, h, w = target.shape
    return -(-h * w // (_THREADS * _STEPS)), b


def _gather_grid(target: Tensor, maps: int) -> tuple[int, int, int]:
    """A number of a map has scale² pixels and at most scale²/2 threads (`gather_gradients`)."""
    b, _, h, w = target.shape
    return -(-h * w // (2 * _THREADS)), maps, b


def _heads(low: Sequence[Tensor], h: int) -> tuple[Any, ...]:
    """Four maps and four scales, as the kernels take them."""
    scales = [h // z.shape[2] for z in low]
    return (*_four(low), *scales, *[1] * (4 - len(scales)))


def _four(tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return (*tensors, *[None] * (4 - len(tensors)))
