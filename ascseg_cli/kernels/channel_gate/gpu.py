"""The channel gate on CUDA GPUs: one pass over the image, then all that is small in one block of threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.channel_gate import reference
from ascseg_cli.kernels.cuda import Argument, kernel
from ascseg_cli.kernels.cuda.pixels import pitch, pixels, together
from ascseg_cli.kernels.shared_norm import momentum_of

_HERE = Path(__file__).parent
_THREADS, _LAYER_THREADS = 256, 512
_BLOCKS = 240  # nearly two for each multiprocessor of a large GPU
_STAGED = 64  # channels up to which both layers' weights fit into any GPU's shared memory


def channel_gate(x: Tensor, gate: nn.Sequential) -> Tensor:
    """See `kernels.channel_gate.channel_gate`. Float32, and bfloat16 where no gradient is wanted.

    Gradients are bit-equal in every run.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ShapeError(f"x is {x.dtype}; the gpu backend takes float32 and bfloat16", "use --backend auto")
    if x.shape[0] == 0:
        return reference.channel_gate(x, gate)
    conv1, norm1, _, conv2, norm2, _ = gate
    weights = [t for step in (conv1, norm1, conv2, norm2) for t in (step.weight, step.bias)]
    return _Gate.apply(x, *weights, norm1, norm2).to(x.dtype)


@dataclass(frozen=True)
class _Plan:
    """How `gate.cu` cuts an image."""

    b: int
    c: int
    pixels: int
    vec: int

    @classmethod
    def of(cls, x: Tensor, vec: int) -> _Plan:
        b, c, h, w = x.shape
        return cls(b, c, h * w, vec)

    @property
    def lanes(self) -> int:
        return min(self.c // self.vec, 32)

    @property
    def steps(self) -> int:
        """Pixels of a thread: as many as leave work for the whole GPU."""
        return next((n for n in (32, 16, 8) if self._blocks(n) >= _BLOCKS), 4)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self._tiles(self.steps), self.b, self._groups

    @property
    def shared(self) -> int:
        """Bytes: a maximum, its place and a sum for every number a thread has; for up to 256 parts, in double."""
        return 12 * _THREADS * self.vec + 16 * _THREADS

    def constants(self) -> dict[str, int]:
        return {"C": self.c, "VEC": self.vec, "LANES": self.lanes}

    @property
    def _groups(self) -> int:
        return -(-self.c // (self.lanes * self.vec))

    def _tiles(self, steps: int) -> int:
        return -(-self.pixels // (_THREADS // self.lanes * steps))

    def _blocks(self, steps: int) -> int:
        return self._tiles(steps) * self.b * self._groups


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        gamma1: Tensor,
        beta1: Tensor,
        weight2: Tensor,
        bias2: Tensor | None,
        gamma2: Tensor,
        beta2: Tensor,
        norm1: nn.BatchNorm2d,
        norm2: nn.BatchNorm2d,
    ) -> Tensor:
        x = pixels(x)
        (b, c, h, w), weight1, weight2 = x.shape, weight1.contiguous(), weight2.contiguous()
        parts = _pooled(x)
        ctx.training = norm1.training
        kept, norms = (x.new_empty(4, *shape, dtype=torch.float64) for shape in ((b, c), (c,)))
        places, result = x.new_empty(b, c, dtype=torch.int32), weight1.new_empty(b, c, 1, 1)
        first = (weight1, bias1, gamma1, beta1, *_running(norm1))
        second = (weight2, bias2, gamma2, beta2, *_running(norm2))
        tiles = parts[0].shape[1]
        run = kernel(_HERE / "layers.cu", "gate", **_constants(c, ctx.training))
        given = (*parts, tiles, float(h * w), b, *first, *second, kept, norms, places, result)
        run((1,), _LAYER_THREADS, *given, shared=2 * 4 * c * (c + 1) if c <= _STAGED else 0)
        ctx.shape = x.shape
        ctx.save_for_backward(kept, norms, places, weight1, gamma1, beta1, weight2, gamma2, beta2)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgate: Tensor) -> tuple[Tensor | None, ...]:
        kept, norms, places, *weights = ctx.saved_tensors
        (b, c), needs = places.shape, ctx.needs_input_grad
        dz, ds = kept.new_empty(2, b, c), dgate.new_empty(b, c)
        dweight, dvectors = dgate.new_empty(2, c, c, 1, 1), dgate.new_empty(2, 3, c)
        run = kernel(_HERE / "layers.cu", "gate_gradient", **_constants(c, ctx.training))
        given = (dgate.contiguous(), kept, norms, b, *weights)
        run((1,), _LAYER_THREADS, *given, dz, ds, dweight, dvectors)
        dx = _spread(ds, places, ctx.shape) if needs[0] else None
        layers = [(w, bias, gamma, beta) for w, (gamma, beta, bias) in zip(dweight, dvectors)]
        found = (dx, *layers[0], *layers[1])
        return *(t if need else None for t, need in zip(found, needs)), None, None


def _constants(c: int, training: bool) -> dict[str, int]:
    return {"C": c, "TRAINING": int(training), "STAGED": int(c <= _STAGED)}


def _running(norm: nn.BatchNorm2d) -> tuple[Argument, ...]:
    """Running values, the count of batches, momentum and eps."""
    return norm.running_mean, norm.running_var, norm.num_batches_tracked, momentum_of(norm), float(norm.eps)


def _pooled(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima, their places and sums of parts of every image: (b, tiles, c)."""
    plan = _Plan.of(x, together(x))
    shape = (plan.b, plan.grid[0], plan.c)
    parts = tuple(x.new_empty(shape, dtype=dtype) for dtype in (torch.float32, torch.int32, torch.float64))
    run = kernel(_HERE / "gate.cu", "pool", HALF=int(x.dtype == torch.bfloat16), **plan.constants())
    run(plan.grid, _THREADS, x, pitch(x), *parts, plan.pixels, plan.steps, shared=plan.shared)
    return parts[0], parts[1], parts[2]


def _spread(ds: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of x: ds shared out over all pixels, and given to the largest."""
    b, c, h, w = shape
    dx = ds.new_empty(b, h, w, c).permute(0, 3, 1, 2)
    plan = _Plan.of(dx, 4 if c % 4 == 0 else 1)
    kernel(_HERE / "gate.cu", "spread", HALF=0, **plan.constants())(
        plan.grid, _THREADS, ds, places, dx, plan.pixels, plan.steps
    )
    return dx
