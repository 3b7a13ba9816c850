"""Images for the GPU's memory-bound operators in training, where they run, and their judge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from cases import assert_as_exact
from emulator import emulate
from torch import Tensor

DEVICES = ("emulated", "cuda")
# b, c, h, w, memory: dense channels-last, with a wider pitch, or torch's usual
SIZES = [
    (2, 8, 7, 11, "dense"),
    (1, 6, 9, 5, "wide"),
    (3, 8, 6, 4, "wide"),
    (2, 24, 5, 7, "dense"),
    (1, 5, 4, 17, "usual"),
    (2, 1, 8, 7, "dense"),
    (3, 4, 1, 1, "dense"),
    (1, 4, 38, 41, "dense"),
    (0, 4, 3, 5, "dense"),
]
Leaves = dict[str, Tensor | None]


@contextlib.contextmanager
def on(device: str) -> Iterator[str]:
    """Runs kernels on this device; skips, with the reason, where that can't be. Gives torch's name of it."""
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")
        yield "cuda"
        return
    if emulate.COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulate.emulated():
        yield "cpu"


def image(b: int, c: int, h: int, w: int, memory: str = "dense", mean: float = 0.0) -> Tensor:
    """Random numbers about `mean` in the memory asked for; a wide pitch keeps groups of four aligned."""
    if memory == "usual":
        return torch.randn(b, c, h, w) + mean
    left, right = (4, 8) if memory == "wide" else (0, 0)
    return (torch.randn(b, h, w, left + c + right) + mean).permute(0, 3, 1, 2)[:, left : left + c]


def norm_leaves(x: Tensor, name: str = "") -> Leaves:
    """Statistics of x, weight and bias."""
    c = x.shape[1]
    exact = x.double().transpose(0, 1).flatten(1)
    means, variances = (exact.mean(1), exact.var(1, False)) if x.numel() else (torch.zeros(c), torch.ones(c))
    statistics = torch.stack([means, variances]).float()
    weight = torch.rand(c) + 0.5
    return {f"{name}statistics": statistics, f"{name}weight": weight, f"{name}bias": torch.randn(c) / 2}


def normalised(z: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch normalisation with given statistics, which get a gradient."""
    mean, variance, gamma, beta = (t[:, None, None] for t in (*statistics, weight, bias))
    return gamma * (z - mean) / (variance + eps).sqrt() + beta


def statistics_of(y: Tensor) -> Tensor:
    values = y.transpose(0, 1).flatten(1)
    return torch.stack([values.mean(1), values.var(1, False)])


def judge(
    operator: Callable[..., Sequence[Tensor]],
    reference: Callable[..., Sequence[Tensor]],
    draw: Callable[[], Leaves],
    device: str,
    fixed: Sequence[str] = (),
    draws: int = 0,
) -> None:
    """Raise AssertionError unless every result and gradient errs at most twice as much as plain torch's.

    A sum over pixels is one number a channel, in which either may be lucky, and which may be near zero: so all
    draws are judged as one; more of them where there are few pixels or channels.

    operator, reference  leaves by name -> results
    draw                 leaves, float32
    fixed                leaves that want no gradient
    """
    got, plain, exact = [], [], []
    image = next(t for t in draw().values() if t is not None)
    pixels, few = image[:, 0].numel(), image[:, 0].numel() < 12 or image.shape[1] < 4
    for seed in range(draws or (1 if pixels == 0 else 24 if few else 4)):
        torch.manual_seed(seed)
        leaves = draw()  # plain torch stays on the CPU: in torch 2.11 a GPU's avg_pool2d has wrong gradients
        there = {name: None if t is None else t.to(device) for name, t in leaves.items()}
        with torch.random.fork_rng():
            found = _results(operator, there, torch.float32, fixed, seed)
        got.append({name: t.cpu() for name, t in found.items()})
        plain.append(_results(reference, leaves, torch.float32, fixed, seed))
        exact.append(_results(reference, leaves, torch.float64, fixed, seed))
    assert got[0].keys() == exact[0].keys()
    for name in exact[0]:
        assert_as_exact(*([torch.stack([d[name] for d in ts])] for ts in (got, plain, exact)), name=name)


def _results(
    operator: Callable[..., Sequence[Tensor]], leaves: Leaves, dtype: torch.dtype, fixed: Sequence[str], seed: int
) -> dict[str, Tensor]:
    fresh = {
        name: None if t is None else t.detach().to(dtype).requires_grad_(name not in fixed)
        for name, t in leaves.items()
    }
    wanted = {name: t for name, t in fresh.items() if t is not None and t.requires_grad}
    results = [r for r in operator(**fresh) if r is not None]
    torch.manual_seed(1000 + seed)
    memory = "wide" if seed % 2 else "usual"
    dresults = [(image(*r.shape, memory) if r.dim() == 4 else torch.randn(r.shape)).to(r) for r in results]
    gradients = torch.autograd.grad(results, list(wanted.values()), dresults)
    found = {"y": results[0], **{f"grad {name}": t for name, t in zip(wanted, gradients, strict=True)}}
    if len(results) > 1:
        found["statistics"] = results[1]
    return {name: t for key, t in found.items() for name, t in _rows(key, t.detach().clone())}


def _rows(name: str, t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Means and variances are judged apart."""
    if "statistics" in name:
        yield from ((f"{name}[{i}]", row) for i, row in enumerate(t))
    else:
        yield name, t
