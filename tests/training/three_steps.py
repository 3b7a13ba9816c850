"""Three steps in float64 by this process or its team; the leader writes what they came to.

python three_steps.py DATA FILE
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch
from drawn_runs import CPU, TINY
from safetensors.torch import save_file

from ascseg_cli.kernels import backend
from ascseg_cli.training import team as teams
from ascseg_cli.training.augment import SCENE, SCREEN
from ascseg_cli.training.averaging import settle_statistics
from ascseg_cli.training.batches import Batches
from ascseg_cli.training.files import RunFolder
from ascseg_cli.training.fit import Fit, Stop
from ascseg_cli.training.material import prepare, settle

STEPS = 3
RATE = 3e-4  # AdamW divides gradients that are next to nothing by as little, so rounding grows with the rate
EVERYTHING = {name: 0.4 for name in (*SCENE, "frame", *SCREEN)}


def three_steps(data: Path, file: Path) -> None:
    """Find the statistics of the first weights, train, and write every tensor of the run."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    team = teams.called()
    given = {**TINY, "size": 32, "drawn_size": 40, "steps": 5, "rate": RATE, "augmentation": EVERYTHING}
    settings = settle({**given, "data": str(data)}, RunFolder(file.parent / "none"), resume=False)
    material = prepare(settings, CPU, lambda kind, text: None)
    teams.join(team, CPU)
    with backend.using("reference"):
        parts = (material.images, settings.stages()[-1], settings, material.rule, CPU)
        fit = Fit(material.images, settings, material.rule, CPU, team=team)
        for network in (fit.model, fit.averaged.model):
            network.double()  # A_log is made in float32 whatever the default
        settle_statistics(fit.averaged.model, Batches(*parts, team), 2)
        statistics = {f"statistics.{name}": buffer.clone() for name, buffer in fit.averaged.model.named_buffers()}
        with contextlib.suppress(Stop):
            fit.run(lambda: None, lambda check, model: None, lambda: None, lambda: fit.place.step == STEPS)  # type: ignore[arg-type,return-value]
    if team.leads:
        save_file({"loss": torch.tensor(fit.loss), **statistics, **fit.tensors()}, file)
    teams.leave(team)


if __name__ == "__main__":
    three_steps(Path(sys.argv[1]), Path(sys.argv[2]))
