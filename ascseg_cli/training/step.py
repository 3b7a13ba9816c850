"""One optimiser step: forward, loss, backward, clipping, AdamW; on a GPU recorded once and replayed as a graph.

A step is some thousand small kernels. Replayed as one CUDA graph they follow each other without the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.cuda import compile_ahead
from ascseg_cli.network.asc_seg import ASCSeg
from ascseg_cli.network.loss import segmentation_loss
from ascseg_cli.training.settings import Settings, Stage
from ascseg_cli.training.team import ALONE, Team

_ADAMW = ("step", "exp_avg", "exp_avg_sq")
# torch 2.4 has only the latter
OUT_OF_MEMORY: type[BaseException] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
_EAGER_STEPS = 8  # before recording: kernels are compiled and tuned, the optimiser's state is made


class Optimiser:
    """AdamW with clipped gradients and a learning rate that a recorded graph can read.

    No weight decay on vectors and on A_log: it would pull norms, biases and A's time scales to zero.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.parameters = list(model.parameters())
        self._named = list(model.named_parameters())
        self.clip = settings.clip
        kind = self.parameters[0].device.type
        self.rate = torch.zeros((), device=self.parameters[0].device)
        plain: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (plain if parameter.dim() < 2 or name.endswith("A_log") else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": settings.decay}, {"params": plain, "weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW(groups, lr=self.rate, capturable=kind == "cuda", fused=kind != "mps")

    def state(self) -> dict[str, Tensor]:
        """What AdamW has gathered so far: `name.key` of every parameter that has taken a step."""
        kept = ((name, self._adamw.state.get(parameter, {})) for name, parameter in self._named)
        return {f"{name}.{key}": value for name, state in kept for key, value in state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave; before the first step."""
        for name, parameter in self._named:
            found = {key: state[f"{name}.{key}"] for key in _ADAMW if f"{name}.{key}" in state}
            # A step count lies on the CPU unless a graph records it.
            place = {"step": self.rate.device if self.rate.is_cuda else torch.device("cpu")}
            if found:
                self._adamw.state[parameter] = {
                    key: value.to(place.get(key, parameter.device), copy=True) for key, value in found.items()
                }

    def zero(self) -> None:
        self._adamw.zero_grad(set_to_none=True)

    def step(self) -> Tensor:
        """Clip, move the weights, and return the gradients' norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self._adamw.step()
        return norm


class TrainingStep:
    """Trains `model` by one batch a call, all of one stage's shape, of which each process of a team has its share.

    loss and norm are tensors that hold the last step's loss and gradient norm (before clipping).
    """

    def __init__(self, model: ASCSeg, optimiser: Optimiser, stage: Stage, team: Team = ALONE) -> None:
        self.model, self.team = model.train(), team
        self.optimiser = optimiser
        device = optimiser.rate.device
        self.loss = self.norm = torch.zeros((), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0
        batch = len(team.share(stage.batch))
        self._images = torch.zeros(batch, 3, stage.size, stage.size, device=device)
        self._targets = torch.zeros(batch, 1, stage.size, stage.size, device=device)

    def __call__(self, images: Tensor, targets: Tensor, rate: float) -> None:
        """images (b, 3, s, s) float32, normalised; targets (b, 1, s, s) float32; rate the learning rate."""
        self._images.copy_(images)
        self._targets.copy_(targets)
        self.optimiser.rate.fill_(rate)
        if self._done == 0 and self.team.size == 1 and backend.for_operator("chain", images) == "gpu":
            self._compile()
        if self._graph is None and self._done >= _EAGER_STEPS and images.is_cuda and self.team.size == 1:
            self._record()
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        self._done += 1

    def _compile(self) -> None:
        """Compile every kernel; the batch norms' running values, which that fills with garbage, are put back."""
        before = [buffer.clone() for buffer in self.model.buffers()]
        compile_ahead(self._backward)
        for buffer, value in zip(self.model.buffers(), before):
            buffer.copy_(value)

    def _run(self) -> None:
        self.loss = self._backward()
        self.norm = self.optimiser.step()

    def _backward(self) -> Tensor:
        """Leave the gradients in the parameters and return the loss."""
        self.optimiser.zero()
        loss = segmentation_loss(self.model.low_logits(self._images), self._targets) / self.team.size
        loss.backward()
        total = loss.detach()
        self.team.add_up([total, *(p.grad for p in self.optimiser.parameters if p.grad is not None)])
        return total

    def _record(self) -> None:
        """Record one step; recording runs nothing, so the weights stay as they are."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
            self._run()
        self._graph = graph
