"""A sample of tests/long/kill_predict.py, with a stand-in for the network."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

IMAGES = 40
SCRIPT = Path(__file__).resolve().parents[1] / "long" / "kill_predict.py"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_runs_are_completed_to_the_same_bytes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("kill_predict", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules["kill_predict"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.draw_photos(tmp_path / "photos", IMAGES)

    def command(output: Path) -> list[str]:
        run = Path(__file__).with_name("killed_run.py")
        return [sys.executable, str(run), str(tmp_path / "photos"), str(output)]

    tally = script.Killer(command, tmp_path, IMAGES, seed=1, seconds=0.8)(8)
    assert tally.hit == 8
    assert tally.amid >= 3
    assert len(tally.kinds) >= 3
