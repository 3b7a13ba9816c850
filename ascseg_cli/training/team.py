"""The processes that train one network together, each on a device of its own and a share of every batch.

They are started by `--devices` or by torchrun, which say by the same variables who is who.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as processes
from torch import Tensor

from ascseg_cli.errors import UsageError
from ascseg_cli.training.settings import RunSettings

_PATIENCE = timedelta(hours=6)  # others wait while the first judges; who watches them ends them if one dies


@dataclass(frozen=True)
class Team:
    """Who this process is among `size` of them; one alone does without any exchange."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that judges, speaks and writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Which images of a batch are this process's."""
        each = batch // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Make each tensor its sum over all processes, in place."""
        if self.size > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            processes.all_reduce(flat)
            for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(summed.view_as(tensor))

    def any(self, asked: bool, device: torch.device) -> bool:
        """Whether one of the processes asks."""
        if self.size == 1:
            return asked
        votes = torch.tensor([float(asked)], device=device)
        processes.all_reduce(votes)
        return bool(votes.item() > 0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            processes.barrier()


ALONE = Team()


def called(environment: Mapping[str, str] = os.environ) -> Team:
    """The team that this process was started for. Raises UsageError."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in environment for name in names) or environment["WORLD_SIZE"] == "1":
        return ALONE
    try:
        return Team(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
    except ValueError as error:
        raise UsageError("RANK and WORLD_SIZE must be whole numbers", "unset them to train alone") from error


def check(settings: RunSettings, size: int) -> None:
    """Raise UsageError where a run can't be divided among so many processes."""
    if size == 1:
        return
    for stage in settings.stages():
        if stage.batch % size or stage.batch < 2 * size:
            raise UsageError(
                f"batches of {stage.batch} images can't be shared out to {size} devices, two or more to each",
                f"--batch {max(2, round(stage.batch / size)) * size}",
            )
    if settings.minutes is not None:
        raise UsageError(
            "clocks differ, so a run on several devices can't end by --minutes", "give --steps or --epochs"
        )


def device_of(team: Team, wanted: str, environment: Mapping[str, str] = os.environ) -> str:
    """The name of this process's device. Raises UsageError."""
    if team.size == 1 or wanted == "cpu":
        return wanted
    if wanted not in ("auto", "cuda"):
        raise UsageError(f"--device {wanted} is one device; several are called cuda or cpu")
    if not torch.cuda.is_available():
        return wanted
    return f"cuda:{environment.get('LOCAL_RANK', team.rank)}"


def join(team: Team, device: torch.device) -> None:
    """Meet the other processes; before anything is exchanged."""
    if team.size > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        processes.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)


def leave(team: Team) -> None:
    """End the exchange."""
    if team.size > 1:
        processes.destroy_process_group()
