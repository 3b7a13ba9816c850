"""A small sample of tests/long/fuzz_weights.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "long" / "fuzz_weights.py"


def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_weights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    summary, failures = script.fuzz(25, 1, tmp_path)
    assert failures == []
    assert len(summary) == 6
