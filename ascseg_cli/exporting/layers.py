"""The network's layers as ONNX nodes: convolutions with their batch norms folded in, and what stands between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ascseg_cli.exporting.graph import Graph

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


@dataclass(frozen=True)
class Affine:
    """One factor and one summand a channel: what a batch norm does once its statistics are fixed."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Kernel:
    """A convolution: weight (out, in / groups, k, k) and bias (out,)."""

    weight: np.ndarray
    bias: np.ndarray

    def then(self, norm: Affine) -> Kernel:
        """This convolution, then a norm, as one."""
        return Kernel(self.weight * norm.scale[:, None, None, None], self.bias * norm.scale + norm.shift)

    def after(self, norm: Affine) -> Kernel:
        """A norm, then this convolution of size 1 and one group, as one."""
        weight = self.weight[:, :, 0, 0]
        return Kernel(self.weight * norm.scale[:, None, None], self.bias + weight @ norm.shift)

    def of_filtered(self, window: np.ndarray) -> Kernel:
        """A filter (k, k) on every channel, then this convolution of size 1, as one of size k."""
        return Kernel(self.weight * window, self.bias)


MEAN = np.full((3, 3), 1 / 9)  # neighbours outside count as zeros, as the padding of a convolution does
HIGH_PASS = np.pad([[1.0]], 1) - MEAN


def kernel(t: Tensors, name: str, norm: str = "") -> Kernel:
    """The convolution of that name, with the batch norm that follows it."""
    plain = Kernel(t[f"{name}.weight"], t[f"{name}.bias"])
    return plain.then(affine(t, norm)) if norm else plain


def affine(t: Tensors, name: str) -> Affine:
    """The batch norm of that name, by its running statistics."""
    scale = t[f"{name}.weight"] / np.sqrt(t[f"{name}.running_var"] + EPSILON)
    return Affine(scale, t[f"{name}.bias"] - t[f"{name}.running_mean"] * scale)


def conv(g: Graph, x: str, k: Kernel, name: str, *, dilation: int = 1) -> str:
    """(b, c, h, w) -> (b, c', h, w): stride 1, size kept."""
    into, size = k.weight.shape[1:3]
    groups = 1 if into > 1 or len(k.weight) == 1 else len(k.weight)
    return _conv(g, x, k, name, groups=groups, size=size, dilation=dilation)


def grouped(g: Graph, x: str, k: Kernel, name: str) -> str:
    """The same with one group for each output channel."""
    return _conv(g, x, k, name, groups=len(k.weight), size=k.weight.shape[2], dilation=1)


def _conv(g: Graph, x: str, k: Kernel, name: str, *, groups: int, size: int, dilation: int) -> str:
    pad = dilation * (size - 1) // 2
    weight, bias = g.weight(f"{name}.weight", k.weight), g.weight(f"{name}.bias", k.bias)
    return g.op(
        "Conv", x, weight, bias, kernel_shape=[size] * 2, pads=[pad] * 4, dilations=[dilation] * 2, group=groups
    )


def scaled(g: Graph, x: str, norm: Affine, name: str) -> str:
    """A batch norm that nothing can take in."""
    scale, shift = (g.weight(f"{name}.{n}", v[:, None, None]) for n, v in vars(norm).items())
    return g.op("Add", g.op("Mul", x, scale), shift)


def relu(g: Graph, x: str) -> str:
    return g.op("Relu", x)


def gelu(g: Graph, x: str) -> str:
    return g.op("Gelu", x, approximate="none")


def sigmoid(g: Graph, x: str) -> str:
    return g.op("Sigmoid", x)


def gated(g: Graph, gate: str, x: str) -> str:
    """gate · x + x."""
    return g.op("Add", g.op("Mul", gate, x), x)


def double(g: Graph, x: str) -> str:
    """(b, c, h, w) -> (b, c, 2h, 2w), bilinear with align_corners=True."""
    scales = g._kept("twice", np.array([1, 1, 2, 2], np.float32))
    mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    return g.op("Resize", x, "", scales, **mode)


def halve(g: Graph, x: str) -> str:
    """The largest of each two by two pixels."""
    return g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def standardised(g: Graph, x: str) -> str:
    """Each pixel's channels (b, c, h, w) with mean 0 and variance 1: a layer norm without its factors."""
    centred = g.op("Sub", x, g.op("ReduceMean", x, g.whole(1)))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), g.whole(1))
    return g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, g.real(EPSILON, g.precision))))
