"""A sample of tests/long/fuzz_decode.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("pydicom", reason="the extra `dicom` isn't installed")


def test_a_sample_of_mutated_files() -> None:
    path = Path(__file__).resolve().parents[1] / "long" / "fuzz_decode.py"
    spec = importlib.util.spec_from_file_location("fuzz_decode", path)
    assert spec
    assert spec.loader
    import sys

    module = sys.modules["fuzz_decode"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report = module.fuzz(count=330, seed=7)
    assert report.files == 330
    assert not report.faults
    assert report.read >= 20, "mutations so strong that nothing is read prove little"
    assert sum(report.refused.values()) >= 150


def test_the_fuzzing_notices_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz_decode

    def careless(*_: object, **__: object) -> None:
        raise KeyError("palette")

    monkeypatch.setattr(fuzz_decode, "read_pixels", careless)
    assert fuzz_decode.fuzz(count=1, seed=0).faults == ["bmp #0: KeyError: 'palette'"]
