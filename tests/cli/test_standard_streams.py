"""Standard streams that a caller closed or filled up: a clear line and code, never a traceback or a lost mask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def shell(weights: Path, photo: Path, line: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `predict` with the rest of a command line; $IN is the picture and $OUT an output folder."""
    named = {**os.environ, "IN": str(photo), "OUT": str(photo.parent / "out")}
    base = f"{sys.executable} -m ascseg_cli predict --weights {weights} --backend reference"
    return subprocess.run(f"{base} {line}", shell=True, env=named, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("$IN -o $OUT 2>&-", 0, b""),
        ("$IN -o $OUT -q >&- <&-", 0, b""),
        ("- <$IN >&-", 2, b"error: the mask goes to stdout, which is closed"),
        ("- <&-", 3, b"error: stdin: the file is empty"),
        ("- -o $OUT --save polygons <$IN", 2, b"--save must name masks"),
    ],
)
def test_closed_streams(drawn_weights: Path, photo: Path, line: str, code: int, words: bytes) -> None:
    run = shell(drawn_weights, photo, line)
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert b"bug" not in run.stderr
    assert (photo.parent / "out" / "masks" / "a.png").exists() == (code == 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("line", ["- <$IN >/dev/full", "$IN -o $OUT --json >/dev/full"])
def test_a_full_stdout_is_named(drawn_weights: Path, photo: Path, line: str) -> None:
    run = shell(drawn_weights, photo, line)
    assert run.returncode == 3
    assert b"error: stdout can't be written: No space left on device" in run.stderr
    assert b"Exception ignored" not in run.stderr
    if "--json" in line:
        assert json.loads((photo.parent / "out" / "run.json").read_bytes())["state"] == "finished"
        assert len((photo.parent / "out" / "results.csv").read_bytes().splitlines()) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("line", "code"), [("$IN -o $OUT", 0), ("$IN nowhere.png -o $OUT", 1), ("$IN --save x", 2)]
)
def test_messages_that_nobody_can_hear_change_nothing(
    drawn_weights: Path, photo: Path, line: str, code: int
) -> None:
    run = shell(drawn_weights, photo, f"{line} 2>/dev/full")
    assert run.returncode == code
    assert (photo.parent / "out" / "masks" / "a.png").exists() == (code < 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("line", ["--help", "--version", "weights list", "weights list --json"])
def test_a_full_stdout_is_no_bug(line: str) -> None:
    run = subprocess.run(
        f"{sys.executable} -m ascseg_cli {line} >/dev/full", shell=True, capture_output=True, check=False
    )
    assert run.stderr == b"error: stdout can't be written: No space left on device\n"
    assert run.returncode == 3


def test_help_needs_no_encoding() -> None:
    command = [sys.executable, "-m", "ascseg_cli", "predict", "--help"]
    run = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert b"Foreground is where p \\u2265 P" in run.stdout
