"""`ascseg doctor`: true on this machine, and able to say what is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ascseg_cli.inference import diagnosis


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ascseg_cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_sound_machine_passes() -> None:
    run = doctor("--json")
    checks = {check["name"]: check for check in map(json.loads, run.stdout.splitlines())}
    assert [name for name, check in checks.items() if check["state"] == "broken"] == []
    assert run.returncode == 0
    assert checks["backend reference"]["state"] == "ok"
    assert "float64" in checks["kernels cpu"]["detail"]
    assert torch.__version__.split("+")[0] in checks["packages"]["detail"]
    assert all(
        check["remedy"]
        for check in checks.values()
        if check["name"].startswith("extra") and check["state"] != "ok"
    )


def test_the_text_says_the_same_in_a_pipe() -> None:
    run = doctor()
    assert run.returncode == 0
    assert "\x1b" not in run.stdout
    assert not any(line != line.rstrip() for line in run.stdout.splitlines())
    assert "backend reference" in run.stdout


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ascseg_cli.kernels.deform_depthwise import cpu

    right = cpu.deform_depthwise
    monkeypatch.setattr(cpu, "deform_depthwise", lambda *a: right(*a) * 1.001)
    (check,) = (c for c in diagnosis.diagnose() if c.name == "kernels cpu")
    assert check.state == "broken"
    assert "--backend reference" in check.remedy


def test_a_broken_import_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    checks = list(diagnosis.diagnose())
    (opencv,) = (c for c in checks if c.name == "opencv")
    assert opencv.state == "broken"
    assert "opencv-python-headless" in opencv.remedy
    assert checks[-1].name.startswith("extra")


def test_an_opencv_that_needs_a_screen_is_told_how_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoGl:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "cv2":
                raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoGl(), *sys.meta_path])
    (opencv,) = (c for c in diagnosis.diagnose() if c.name == "opencv")
    assert opencv.state == "broken"
    assert "pip uninstall -y opencv-python" in opencv.remedy


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASCSEG_HOME", str(tmp_path / "file" / "home"))
    (check,) = (c for c in diagnosis.diagnose() if c.name == "weights folder")
    assert check.state == "missing"
    assert "ASCSEG_HOME" in check.remedy
