"""A short run with a stand-in for the teacher, by this process and its team; prints what the team's member saw.

python shared_teacher.py DATA OUTPUT
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from drawn_runs import CPU, TINY, Watcher
from small_teacher import GIVEN, stand_in

from ascseg_cli.training import team as teams
from ascseg_cli.training.files import RunFolder
from ascseg_cli.training.material import prepare, settle
from ascseg_cli.training.run import Run


def shared_run(data: Path, output: Path) -> dict[str, object]:
    """Train for two steps; the teacher as a hash of its weights, and how many steps trained it here."""
    torch.set_num_threads(1)
    team, watch = teams.called(), Watcher()
    settings = settle({**TINY, **GIVEN, "data": str(data), "steps": 2}, RunFolder(output), resume=False)
    material = prepare(settings, CPU, watch.say)
    teams.join(team, CPU)
    with pytest.MonkeyPatch.context() as patch:
        first = output.parent / f"first-{team.rank}"
        first.mkdir()
        stand_in(patch, first)
        run = Run(material, settings, RunFolder(output), CPU, watch, team=team)
        run()
        soften = run._teacher()
    teams.leave(team)
    assert soften is not None
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in soften.model.state_dict().values()))
    return {"teacher": digest.hexdigest(), "taught": watch.taught}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(shared_run(Path(sys.argv[1]), Path(sys.argv[2]))))
