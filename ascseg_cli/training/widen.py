"""A wider network that computes what a narrower one does, to go on training from.

Every channel becomes several with the same values, and what reads them shares its weight among them: unequally,
since equal copies would get equal gradients and stay copies. Source: Chen, Goodfellow and Shlens 2016 (Net2Net).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ascseg_cli.errors import UsageError
from ascseg_cli.network.shapes import STATES, expected_shapes

Tensors = Mapping[str, np.ndarray]

_SEED = 0
_QUAD = 4  # channels that a group of MSFA's grouped convolution reads
_BRANCH_END = re.compile(r"\.cfe\d\.integrate\.")
_FROM_TOKENS = "mamba.x_proj.weight"  # rows: Δ of low rank, then B and C, one a state


def widened(tensors: Tensors, channels: Sequence[int], wanted: Sequence[int]) -> dict[str, np.ndarray]:
    """The tensors of a network of `wanted` channels whose outputs are those of the given one, up to rounding.

    tensors   by name, as in a weights file
    channels  of its four stages
    wanted    the same whole multiple of each
    Raises UsageError where there is no such network.
    """
    times = wanted[0] // channels[0]
    if times < 1 or any(w != times * c or c % (2 * _QUAD) for c, w in zip(channels, wanted, strict=True)):
        raise UsageError(f"channels {_words(channels)} can't be widened to {_words(wanted)}")
    shares = np.random.default_rng(_SEED)
    shapes = expected_shapes(wanted)
    return {name: _widened(name, tensors[name], shape, times, shares) for name, shape in shapes.items()}


def _widened(
    name: str, tensor: np.ndarray, shape: tuple[int, ...], times: int, shares: np.random.Generator
) -> np.ndarray:
    if name.endswith(_FROM_TOKENS):
        delta, states = np.split(tensor, [-2 * STATES])
        tensor = np.concatenate([np.repeat(delta, (shape[0] - len(states)) // len(delta), 0), states])
    elif shape[0] != tensor.shape[0]:
        tensor = _repeated(tensor, times, _QUAD if _BRANCH_END.search(name) else 1)
    if len(shape) > 1 and shape[1] != tensor.shape[1]:
        tensor = _shared(tensor, shape[1] // tensor.shape[1], shares)
    assert tensor.shape == shape, f"{name}: {tensor.shape}, not {shape}"
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _repeated(tensor: np.ndarray, times: int, together: int) -> np.ndarray:
    """Each run of `together` outputs, `times` times one after another."""
    runs = tensor.reshape(-1, together, *tensor.shape[1:])
    return np.repeat(runs, times, 0).reshape(-1, *tensor.shape[1:])


def _shared(tensor: np.ndarray, times: int, shares: np.random.Generator) -> np.ndarray:
    """Each input's weight divided among its `times` copies, which lie side by side."""
    parts = shares.uniform(0.5, 1.5, (tensor.shape[0], tensor.shape[1], times, *[1] * (tensor.ndim - 2)))
    parts /= parts.sum(2, keepdims=True)
    whole = tensor.astype(np.float64)[:, :, None] * parts
    return whole.reshape(tensor.shape[0], -1, *tensor.shape[2:])


def _words(channels: Sequence[int]) -> str:
    return ", ".join(map(str, channels))
