"""How exactly kernels without gradients must multiply: torch's own switch for convolutions decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def tf32_allowed() -> bool:
    """May float32 be multiplied as TF32 (10 bits behind the point), and powers taken by the hardware's own unit?

    The answer is a constant of the kernel that is compiled, so it holds for the whole of a recorded graph.
    """
    return torch.backends.cudnn.allow_tf32


@contextmanager
def float32_products(x: Tensor) -> Iterator[None]:
    """Where no gradient is wanted, a float32 x isn't multiplied as TF32 within, whatever else is."""
    before = torch.backends.cudnn.allow_tf32
    if x.dtype == torch.float32 and not torch.is_grad_enabled():
        torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if torch.backends.cudnn.allow_tf32 != before:
            torch.backends.cudnn.allow_tf32 = before
