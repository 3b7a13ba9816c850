"""Weights made ready for a graph that only runs: batch norms and filters folded into convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-5


@dataclass(frozen=True)
class Tensors:
    """The weights of one part of the network, by their names within it, in float64."""

    every: Mapping[str, np.ndarray]
    prefix: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.every[self.prefix + name].astype(np.float64)

    def under(self, name: str) -> Tensors:
        """Those of a part of this part."""
        return Tensors(self.every, f"{self.prefix}{name}.")

    def affine(self, name: str) -> Affine:
        """The batch norm of that name, by its running statistics."""
        scale = self[f"{name}.weight"] / np.sqrt(self[f"{name}.running_var"] + EPSILON)
        return Affine(scale, self[f"{name}.bias"] - self[f"{name}.running_mean"] * scale)

    def kernel(self, name: str, norm: str = "") -> Kernel:
        """The convolution of that name, with the batch norm that follows it."""
        plain = Kernel(self[f"{name}.weight"], self[f"{name}.bias"])
        return plain.then(self.affine(norm)) if norm else plain


@dataclass(frozen=True)
class Affine:
    """One factor and one summand a channel: what a norm does once its statistics are fixed."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Kernel:
    """A convolution: weight (out, in / groups, k, k) and bias (out,)."""

    weight: np.ndarray
    bias: np.ndarray

    @property
    def size(self) -> int:
        """k."""
        return int(self.weight.shape[2])

    def then(self, norm: Affine) -> Kernel:
        """This convolution, then a norm, as one."""
        return Kernel(self.weight * norm.scale[:, None, None, None], self.bias * norm.scale + norm.shift)

    def after(self, norm: Affine) -> Kernel:
        """A norm, then this convolution of size 1 and one group, as one."""
        flat = self.weight[:, :, 0, 0]
        return Kernel(self.weight * norm.scale[:, None, None], self.bias + flat @ norm.shift)

    def of_filtered(self, window: np.ndarray) -> Kernel:
        """A filter (k, k) on every channel, then this convolution of size 1, as one of size k."""
        return Kernel(self.weight * window, self.bias)


MEAN = np.full((3, 3), 1 / 9)  # neighbours outside count as zeros, as the padding of a convolution does
HIGH_PASS = np.pad([[1.0]], 1) - MEAN
