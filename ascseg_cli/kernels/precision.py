"""How exactly kernels without gradients must multiply float32: torch's own switch for convolutions decides."""

from __future__ import annotations

import torch


def tf32_allowed() -> bool:
    """May float32 be multiplied less exactly than it could be?

    If so, convolutions over neighbours take numbers as sums of two of bfloat16 (17 bits), Mamba's mixer multiplies
    TF32 (10 bits behind the point), and powers and reciprocals are the hardware's own. The answer is a constant of
    the kernel that is compiled, so it holds for the whole of a recorded graph.
    """
    return torch.backends.cudnn.allow_tf32
