"""The global maximum plus the global mean of each channel: arguments checked, backend picked."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend

__all__ = ["channel_peak"]


def channel_peak(x: Tensor) -> Tensor:
    """max over pixels + mean over pixels, of each channel of each image.

    x        (b, c, h, w)   h·w at least 1
    returns  (b, c, 1, 1)   x's dtype; the maximum's gradient goes to the first pixel that has it
    Raises ShapeError, BackendError.
    """
    if x.dim() != 4 or x.shape[2] * x.shape[3] == 0:
        raise ShapeError(f"x is {tuple(x.shape)}; it must be (b, c, h, w) with a pixel or more")
    name = backend.for_operator("channel_peak", x, half=not torch.is_grad_enabled())
    return importlib.import_module(f"{__name__}.{name}").channel_peak(x)
