"""Made-up tensors of a network, and checkpoints in the forms that people have them in."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from ascseg_cli.network.shapes import expected_shapes

CHANNELS = (8, 16, 24, 32)


def random_tensors(channels: tuple[int, ...] = CHANNELS, seed: int = 0) -> dict[str, np.ndarray]:
    """Values of every tensor of a network; variances are positive."""
    source = np.random.default_rng(seed)
    return {
        name: np.abs(source.normal(size=shape)).astype(np.float32)
        for name, shape in expected_shapes(channels).items()
    }


def torch_state(tensors: dict[str, np.ndarray], dtype: str = "float32") -> dict[str, Any]:
    """The state dict that the original code saves, BN's counters included."""
    import torch

    state: dict[str, Any] = OrderedDict()
    for name, values in tensors.items():
        state[name] = torch.from_numpy(values.copy()).to(getattr(torch, dtype))
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return state
