"""A sample of tests/long/fuzz_texts.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "long" / "fuzz_texts.py"


def test_mutated_texts_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_texts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = sys.modules["fuzz_texts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    summary, faults = script.fuzz(8, 3, tmp_path)
    assert faults == []
    assert len(summary) == 7
    assert sum(counts["refused"] for counts in summary.values()) >= 15
