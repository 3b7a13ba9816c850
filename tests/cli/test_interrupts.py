"""`ascseg predict` asked to end, by signals or a reader that leaves: nothing is lost, and it says how to go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_runs import command, rows

pytestmark = pytest.mark.usefixtures("signals_heard")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_well_and_resume_goes_on(drawn_weights: Path, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for index in range(40):
        Image.fromarray(np.roll(pixels, index)).save(folder / f"{index:03}.png")
    whole = command(drawn_weights, folder, "-o", tmp_path / "out", "--json")
    process = subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    process.stdout.readline()  # the first image is done, so the run is under way
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(stdout.splitlines()) == 39
    assert b"--resume" in stderr
    assert b"Traceback" not in stderr
    statuses = [row["status"] for row in rows(tmp_path / "out")]
    assert statuses.count("skipped") > 10
    assert not list((tmp_path / "out").rglob(".ascseg-*"))
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 40 - statuses.count("skipped")
    if number != signal.SIGINT:
        return  # going on is the same
    again = subprocess.run([*whole, "--resume"], capture_output=True, check=True)
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert sum(one["resumed"] for one in told) == 40 - statuses.count("skipped")
    assert {row["status"] for row in rows(tmp_path / "out")} <= {"ok", "empty"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_under_nohup_a_closed_terminal_ends_nothing(drawn_weights: Path, photos: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom ascseg_cli import cli\nfrom ascseg_cli.cli import predict\n"
        "found = predict.weights_file\n"
        "predict.weights_file = lambda *given: (os.kill(os.getpid(), signal.SIGHUP), found(*given))[1]\n"
        "cli.main(sys.argv[1:])"
    )
    arguments = command(drawn_weights, photos / "a.png", "-o", tmp_path / "out")[3:]
    run = subprocess.run(["nohup", sys.executable, "-c", script, *arguments], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {row["status"] for row in rows(tmp_path / "out")} <= {"ok", "empty"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_a_second_interrupt_stops_at_once(drawn_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.bmp")
    for index in range(1, 40):
        os.link(folder / "0.bmp", folder / f"{index}.bmp")
    process = subprocess.Popen(
        command(drawn_weights, folder, "-o", tmp_path / "out", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:  # two signals that come too close to each other are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(stdout.splitlines()) < 39, "rows of images that weren't reached come only from an orderly end"
    assert b"Traceback" not in stderr
    assert not list((tmp_path / "out").rglob(".ascseg-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_before_the_first_image_is_one_line(drawn_weights: Path, photos: Path, name: str) -> None:
    script = (
        "import os, signal, sys\nfrom ascseg_cli import cli\nfrom ascseg_cli.cli import predict\n"
        f"predict.weights_file = lambda *_: os.kill(os.getpid(), signal.{name})\ncli.main(sys.argv[1:])"
    )
    arguments = command(drawn_weights, photos)[3:]
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (130, "interrupted: stopped before the end\n")


def test_an_interrupt_amid_exec_has_the_same_exit_code(tmp_path: Path) -> None:
    """Python makes dataclasses by `exec`; `python -m` would then end itself by SIGINT, though all was caught."""
    (tmp_path / "interrupted.py").write_text(
        "from ascseg_cli import cli\n"
        "cli._check_current_folder = lambda: exec('raise KeyboardInterrupt')\n"
        "cli.main()"
    )
    run = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (130, "interrupted: stopped before the end\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_leaves_amid_a_run_interrupts_it(drawn_weights: Path, photos: Path) -> None:
    for number in range(60):
        os.link(photos / "a.png", photos / f"c{number:02}.png")
    process = subprocess.Popen(
        command(drawn_weights, photos, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["image"] == "a.png"
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in stderr
    assert [row["status"] for row in rows(photos.parent / "photos_ascseg")].count("skipped") > 10


def test_a_reader_that_leaves_ends_the_run_in_good_order(drawn_weights: Path, photos: Path) -> None:
    process = subprocess.Popen(
        command(drawn_weights, photos, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        stderr = process.stderr.read()
    assert process.wait(timeout=60) in (1, 130)
    assert b"Traceback" not in stderr
    assert b"Exception ignored" not in stderr
    assert (photos.parent / "photos_ascseg" / "results.csv").exists()
