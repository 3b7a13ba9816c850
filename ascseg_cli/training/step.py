"""One optimiser step: forward, loss, backward, clipping, AdamW; on a GPU recorded once and replayed as a graph.

A step is some thousand small kernels. Replayed as one CUDA graph they follow each other without the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ascseg_cli.network.loss import deep_supervision_loss
from ascseg_cli.training.settings import Settings

_EAGER_STEPS = 8  # before recording: kernels are compiled and tuned, the optimiser's state is made


class TrainingStep:
    """Trains `model` by one batch a call; the batch's shape must stay the same.

    loss and norm are tensors that hold the last step's loss and gradient norm (before clipping).
    """

    def __init__(self, model: nn.Module, settings: Settings, device: torch.device) -> None:
        self.model = model.train()
        self.parameters = list(model.parameters())
        self.clip = settings.clip
        self.rate = torch.zeros((), device=device)
        self.optimiser = _optimiser(model, settings, self.rate)
        self.loss = self.norm = torch.zeros((), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0
        b, s = settings.batch, settings.size
        self._images = torch.zeros(b, 3, s, s, device=device)
        self._targets = torch.zeros(b, 1, s, s, device=device)

    def __call__(self, images: Tensor, targets: Tensor, rate: float) -> None:
        """images (b, 3, s, s) float32, normalised; targets (b, 1, s, s) float32; rate the learning rate."""
        self._images.copy_(images)
        self._targets.copy_(targets)
        self.rate.fill_(rate)
        if self._graph is None and self._done >= _EAGER_STEPS and images.is_cuda:
            self._record()
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        self._done += 1

    def _run(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss = deep_supervision_loss(self.model(self._images), self._targets)
        loss.backward()
        self.norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        self.loss = loss.detach()

    def _record(self) -> None:
        """Record one step; recording runs nothing, so the weights stay as they are."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self._graph = graph


def _optimiser(model: nn.Module, settings: Settings, rate: Tensor) -> torch.optim.AdamW:
    """AdamW; weight decay only on matrices and kernels: it would pull norms and A's time scales to zero."""
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (plain if parameter.dim() < 2 or name.endswith("A_log") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.decay}, {"params": plain, "weight_decay": 0.0}]
    cuda = rate.is_cuda
    return torch.optim.AdamW(
        groups, lr=rate, capturable=cuda, fused=True if cuda else None, foreach=None if cuda else False
    )
