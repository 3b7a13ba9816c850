"""On the GPU: several images, each normalised and activated, side by side in one or added up, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, autograd
from torch.autograd.function import once_differentiable

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain.layers.norm import Normalisation, Running, partial_sums, statistics_from
from ascseg_cli.kernels.chain.layers.pixels import (
    ACTIVATIONS,
    Launch,
    Pixels,
    float32,
    fresh,
    norm_arguments,
    norm_of,
    norm_parts,
    width,
)
from ascseg_cli.kernels.cuda import Argument, Kernel, kernel

_SOURCE = Path(__file__).with_name("parts.cu")
MOST, _MIXED = 8, -1  # as in parts.cu
Part = tuple[Tensor, Normalisation | None, str]
_Gradients = tuple[Tensor | None, ...]


def concatenated(parts: Sequence[Part]) -> Tensor:
    """Images side by side over channels, each normalised and activated.

    parts    up to eight: (b, c, h, w), its norm or None, its activation (none, relu, gelu or sigmoid)
    returns  (b, sum of all c, h, w), channels-last
    Raises ShapeError.
    """
    y, _ = _apply(parts, summed=False)
    return y


def sum_of_norms(
    parts: Sequence[Part], batch: bool = False, running: Running | None = None
) -> tuple[Tensor, Tensor | None]:
    """The sum of images, each normalised and activated; and its statistics.

    parts    up to eight, as for `concatenated`, of equal shape
    batch    whether statistics (2, c) of the sum are wanted, for a batch norm that follows
    running  that batch norm's running values, moved in place
    returns  (b, c, h, w), channels-last, and statistics or None
    Raises ShapeError.
    """
    return _apply(parts, summed=True, batch=batch, running=running)


def fanned(x: Tensor, n: int) -> tuple[Tensor, ...]:
    """x for n (up to eight) users, whose gradients are added up in one pass instead of one by one."""
    return (x,) if n == 1 else _Fanned.apply(x, n)


class _Fanned(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for _ in range(n))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        present = [g for g in gradients if g is not None]
        if len(present) < 2:
            return present[0] if present else None, None
        return sum_of_norms([(g, None, "none") for g in present])[0], None


@dataclass(frozen=True)
class _Settings:
    summed: bool
    batch: bool
    activations: tuple[str, ...]
    eps: tuple[float, ...]
    running: Running | None

    @property
    def name(self) -> str:
        return "summed" if self.summed else "concatenated"


def _apply(
    parts: Sequence[Part], summed: bool, batch: bool = False, running: Running | None = None
) -> tuple[Tensor, Tensor | None]:
    _check([z for z, _, _ in parts], summed)
    taken = [norm_parts(norm) for _, norm, _ in parts]
    flat = [t for (z, _, _), norm in zip(parts, taken) for t in (z, *norm[:3])]
    activations = tuple(activation for _, _, activation in parts)
    settings = _Settings(summed, batch, activations, tuple(norm[3] for norm in taken), running)
    y, statistics = _Joined.apply(settings, *flat)
    return y, statistics


def _check(images: Sequence[Tensor], summed: bool) -> None:
    float32(*images)
    if not 1 <= len(images) <= MOST:
        raise ShapeError(f"{len(images)} images are given; it must be 1 to {MOST}")
    b, c, h, w = images[0].shape
    for z in images[1:]:
        wanted = (b, c if summed else z.shape[1], h, w)
        if z.shape != wanted:
            raise ShapeError(f"an image is {tuple(z.shape)}; with the first it must be {wanted}")


class _Work:
    """The parts of one call and how they are shared out; flat: z, statistics, weight and bias of each."""

    def __init__(self, settings: _Settings, flat: Sequence[Tensor | None]) -> None:
        self.settings = settings
        self.images = [Pixels.of(z) for z in flat[::4] if z is not None]
        norms = zip(flat[1::4], flat[2::4], flat[3::4], settings.eps)
        self.norms = [norm_of(*norm) for norm in norms]
        self.b, c, self.h, self.w = self.images[0].tensor.shape
        self.each = [image.tensor.shape[1] for image in self.images]
        self.c = c if settings.summed else sum(self.each)

    def launch(self, dy: Pixels | None = None) -> Launch:
        return Launch(self.b, self.h * self.w, self.c, width(*self.images, dy))

    def kernel(self, name: str, vec: int, backward: bool = True) -> Kernel:
        ways = {ACTIVATIONS[activation] for activation in self.settings.activations}
        flags = {"SUMMED": self.settings.summed, "BATCH": self.settings.batch, "BACKWARD": backward}
        constants = {name: int(flag) for name, flag in flags.items()}
        constants["ACTIVATION"] = ways.pop() if len(ways) == 1 else _MIXED
        return kernel(_SOURCE, name, VEC=vec, PARTS=len(self.images), **constants)

    def arguments(self, gradients: Sequence[Tensor | None]) -> list[Argument]:
        found: list[Argument] = []
        for i in range(MOST):
            if i >= len(self.images):
                found += (None, None, 0, 0, 0, *norm_arguments(None))
                continue
            z, way = self.images[i], ACTIVATIONS[self.settings.activations[i]]
            found += (z.tensor, gradients[i], z.pitch, self.each[i], way, *norm_arguments(self.norms[i]))
        return found


class _Joined(autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: _Settings, *flat: Tensor | None) -> tuple[Tensor, Tensor | None]:
        work = _Work(settings, flat)
        y, statistics = _forward(work)
        kept = [t for z, n in zip(work.images, work.norms) for t in (z.tensor, *norm_parts(n)[:3])]
        ctx.settings = replace(settings, running=None)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*kept, statistics)
        return y, statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstatistics: Tensor | None) -> _Gradients:
        *flat, statistics = ctx.saved_tensors
        if dy is None and dstatistics is None:
            return (None,) * (1 + len(flat))
        work = _Work(replace(ctx.settings, batch=dstatistics is not None), flat)
        given = (statistics, None if dstatistics is None else dstatistics.contiguous())
        return None, *_backward(work, None if dy is None else Pixels.of(dy), given, ctx.needs_input_grad[1:])


def _forward(work: _Work) -> tuple[Tensor, Tensor | None]:
    settings, launch, x = work.settings, work.launch(), work.images[0].tensor
    y = fresh(x, work.b, work.c, work.h, work.w)
    partials = partial_sums(x, launch.rows, work.c) if settings.batch else None
    pivot = x.new_empty(work.c) if settings.batch else None
    tail = (y, work.c, launch.pixels) + ((partials, pivot) if settings.summed else ())
    run = work.kernel(f"{settings.name}_forward", launch.vec, backward=False)
    run(launch.grid, launch.threads, *work.arguments([None] * MOST), *tail, shared=launch.scratch)
    if partials is None:
        return y, None
    count = work.b * launch.pixels
    return y, statistics_from(partials[: launch.rows], count, pivot, settings.running if count else None)


def _backward(
    work: _Work, dy: Pixels | None, statistics: _Gradients, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of every part's image, statistics, weight and bias."""
    launch, x, settings = work.launch(dy), work.images[0].tensor, work.settings
    gradients = [fresh(x, *z.tensor.shape) if wants else None for z, wants in zip(work.images, wanted[::4])]
    needs = any(want for i, want in enumerate(wanted) if i % 4)
    partials = partial_sums(x, launch.rows, sum(work.each)) if needs else None
    of = (dy.tensor, dy.pitch) if dy else (None, 0)
    given = (*statistics, float(max(work.b * launch.pixels, 1))) if settings.summed else ()
    run = work.kernel(f"{settings.name}_backward", launch.vec)
    tail = (*of, *given, work.c, launch.pixels, partials)
    run(launch.grid, launch.threads, *work.arguments(gradients), *tail, shared=launch.scratch)
    of_norms = [(None, None, None)] * len(gradients) if partials is None else _finished(work, launch, partials)
    flat = [d for dz, of_norm in zip(gradients, of_norms) for d in (dz, *of_norm)]
    return [d if want else None for d, want in zip(flat, wanted)]


def _finished(work: _Work, launch: Launch, partials: Tensor) -> list[tuple[Any, ...]]:
    """Gradients of statistics (2, c), weight and bias (c,) of every part that is normalised."""
    c = partials.shape[2]
    result = work.images[0].tensor.new_empty(4 * c)
    tail = (partials, launch.rows, c, result)
    work.kernel("finish_parts", launch.vec)((c,), 128, *work.arguments([None] * MOST), *tail, shared=32)
    found: list[tuple[Any, ...]] = []
    for of_part, norm in zip(result.split([4 * n for n in work.each]), work.norms):
        n = len(of_part) // 4
        found.append(
            (of_part[: 2 * n].view(2, n), of_part[2 * n : 3 * n], of_part[3 * n :]) if norm else (None,) * 3
        )
    return found
