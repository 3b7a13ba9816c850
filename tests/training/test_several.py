"""A run shared by several processes is the run of one with the whole batch, and none outlives another's end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killed_training import ENVIRONMENT, newest
from safetensors.torch import load_file

from ascseg_cli.errors import UsageError
from ascseg_cli.network import checkpoint
from ascseg_cli.training import team as teams
from ascseg_cli.training.settings import RunSettings
from ascseg_cli.training.team import Team

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
HERE = Path(__file__).resolve().parent


def _variables(rank: int, size: int, port: int) -> dict[str, str]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_processes_make_the_steps_of_one(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "three_steps.py"), str(folder)]
    alone = subprocess.Popen([*command, str(tmp_path / "one")], env=ENVIRONMENT)
    port = _free_port()
    both = [
        subprocess.Popen([*command, str(tmp_path / "two")], env=_variables(rank, 2, port)) for rank in range(2)
    ]
    assert [process.wait(240) for process in (alone, *both)] == [0, 0, 0]
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[name].dtype == torch.float64 for name in one if name.endswith("weight"))
    for name, tensor in one.items():
        apart = (tensor - two[name]).abs().max().item()
        limit = 1e-9 * max(1.0, tensor.abs().max().item() if "running" in name else 1.0)  # variances reach 30
        assert apart < limit, f"{name} differs by {apart:.3g}"


def test_one_process_trains_the_teacher_for_all(folder: Path, tmp_path: Path) -> None:
    command, port = (
        [sys.executable, str(HERE / "shared_teacher.py"), str(folder), str(tmp_path / "run")],
        _free_port(),
    )
    both = [
        subprocess.Popen(command, env=_variables(rank, 2, port), stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=240)[0]) for process in both)
    assert first["teacher"] == second["teacher"]
    steps = checkpoint.read_metadata(tmp_path / "run" / "weights.safetensors").training["teacher"]["steps"]
    assert (first["taught"], second["taught"]) == (steps, 0)


def _start(data: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    """`ascseg train --devices 2` on drawn images, with a checkpoint after every step."""
    words = ["--data", str(data), "-o", str(output), "--resume", "--size", "16", "--batch", "4", "--devices", "2"]
    sets = ["steps=6", "checks=2", "averaging=0.5", "backend=reference", "save_minutes=1e-9"]
    arguments = [*words, "--device", "cpu", *(word for one in sets for word in ("--set", one)), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "ascseg_cli", "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )  # fmt: skip


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _wait_for_checkpoint(process: subprocess.Popen[bytes], output: Path) -> None:
    until = time.monotonic() + 200
    while not newest(output) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert newest(output), process.communicate()[1].decode()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the processes")
def test_a_killed_process_ends_the_run_and_it_goes_on(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = _start(folder, output)
    _wait_for_checkpoint(process, output)
    children = _children(process)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    words = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 3, words
    assert "error: process 2 of 2 ended by signal 9; the others were stopped" in words
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    process = _start(folder, output)
    out, words_bytes = process.communicate(timeout=240)
    assert process.returncode == 0, words_bytes.decode()
    assert b"going on after step" in words_bytes
    assert out.decode().split() == [str(output / "weights.safetensors")]
    assert words_bytes.count(b"check:") + words_bytes.count(b"done:") == 2 + 1 - words_bytes.count(b"after step 3")
    assert checkpoint.read(output / "weights.safetensors").metadata.training["devices"] == 2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the processes")
@pytest.mark.usefixtures("signals_heard")
def test_a_signal_ends_all_after_the_same_step(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = _start(folder, output, "--set", "steps=400")
    _wait_for_checkpoint(process, output)
    children = _children(process)
    process.send_signal(signal.SIGINT)
    words = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130, words
    assert words.count("interrupted: saved after step") == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _runs(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the processes")
def test_none_trains_on_unwatched(folder: Path, tmp_path: Path) -> None:
    process = _start(folder, tmp_path / "run", "--set", "steps=4000")
    _wait_for_checkpoint(process, tmp_path / "run")
    children = _children(process)
    process.kill()
    until = time.monotonic() + 120
    while any(map(_runs, children)) and time.monotonic() < until:
        time.sleep(0.1)
    left = [child for child in children if _runs(child)]
    for child in left:
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not left


def test_wrong_use_is_said_once(folder: Path, tmp_path: Path) -> None:
    process = _start(folder, tmp_path / "run", "--batch", "5")
    words = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 2
    assert words.count("error:") == 1
    assert "batches of 5 images can't be shared out to 2 devices" in words
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_shared_is_refused() -> None:
    settings = RunSettings(data="d", steps=5, batch=4)
    teams.check(settings, 2)
    with pytest.raises(UsageError, match="batches of 4 images can't be shared out to 4 devices") as caught:
        teams.check(settings, 4)
    assert caught.value.hint == "--batch 8"
    with pytest.raises(UsageError, match="can't end by --minutes"):
        teams.check(RunSettings(data="d", minutes=5, batch=4), 2)
    with pytest.raises(UsageError, match="cuda:1 is one device"):
        teams.device_of(Team(0, 2), "cuda:1")
    with pytest.raises(UsageError, match="whole numbers"):
        teams.called({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
    assert teams.called({"RANK": "0"}) == Team(0, 1)


def test_shares_are_the_whole_batch() -> None:
    assert [i for rank in range(4) for i in Team(rank, 4).share(12)] == list(range(12))
