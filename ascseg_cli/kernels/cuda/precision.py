"""How exactly kernels without gradients must multiply: torch's own switch for convolutions decides."""

from __future__ import annotations

import torch


def tf32_allowed() -> bool:
    """May float32 be multiplied as TF32 (10 bits behind the point), and powers taken by the hardware's own unit?

    The answer is a constant of the kernel that is compiled, so it holds for the whole of a recorded graph.
    """
    return torch.backends.cudnn.allow_tf32
