"""A stand-in for the teacher that learns in moments, and needs no package for its first weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ascseg_cli.training import distillation, teacher
from ascseg_cli.training.teacher import LITE2, Teacher

SIDE = 32
GIVEN = {"teacher": "efficientnet-lite2", "teacher_epochs": 4.0}


def small() -> Teacher:
    """A teacher of the same form with few channels."""
    return Teacher([stage._replace(repeats=1, expansion=2, channels=4) for stage in LITE2], (4, 4, 4, 4))


def stand_in(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let runs have a small teacher, its first weights in `folder`."""
    file = folder / "first.safetensors"
    torch.manual_seed(1)
    save_file(small().encoder.state_dict(), file)
    patch.setattr(distillation, "Teacher", small)
    patch.setattr(distillation, "SIDE", SIDE)
    patch.setattr(distillation, "_BATCH", 6)
    patch.setattr(teacher, "first_weights", lambda: file)
