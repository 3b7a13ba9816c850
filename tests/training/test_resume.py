"""A run stopped in any way goes on from its checkpoint and ends with the weights of an undisturbed one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_runs import CPU, TINY, Watcher, train
from killed_training import ENVIRONMENT, kill_often, newest, same_weights, start
from PIL import Image

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.training import files
from ascseg_cli.training.fit import Fit
from ascseg_cli.training.material import prepare, settle
from ascseg_cli.training.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")
OFTEN = {"save_minutes": 1e-9}  # a checkpoint after every step
STAGES = {"size": 32, "drawn_size": 40, "early_share": 0.5, "early_size": 16, "early_batch": 6}


class StopsAfter(Watcher):
    """Asks the run to end after so many steps of this session."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def step(self, fit: Fit) -> None:
        super().step(fit)
        self.left -= 1


def piecewise(data: Path, output: Path, pieces: int, **given: object) -> None:
    """A run that is stopped after every `pieces` steps, each session with objects of its own."""
    while True:
        folder = files.RunFolder(output)
        settings = settle({**TINY, "data": str(data), **given}, folder, resume=True)
        watch = StopsAfter(pieces)
        material = prepare(settings, CPU, watch.say)
        if Run(material, settings, folder, CPU, watch, lambda: watch.left <= 0)().finished:  # noqa: B023
            return


@pytest.mark.parametrize("stages", [{}, STAGES], ids=["one size", "two sizes"])
def test_a_run_in_pieces_is_the_same_to_the_bit(folder: Path, tmp_path: Path, stages: dict[str, object]) -> None:
    given = {**stages, "steps": 9, "checks": 2}
    whole = train(folder, tmp_path / "whole", **given)
    piecewise(folder, tmp_path / "pieces", 4, **given)
    same_weights(tmp_path / "whole", tmp_path / "pieces")
    assert [row.loss for row in whole.rows] == log_losses(folder, tmp_path / "pieces")


def log_losses(data: Path, output: Path) -> list[float]:
    return [row.loss for row in train(data, output, resume=True).rows]


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(folder: Path, tmp_path: Path) -> None:
    given = {"steps": 6, "checks": 6}
    train(folder, tmp_path / "whole", **given)
    train(folder, tmp_path / "run", **given)
    newest, older = files.RunFolder(tmp_path / "run").checkpoints()
    assert older.name == "checkpoint-0000005.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    watch = Watcher()
    train(folder, tmp_path / "run", watch, resume=True)
    assert any("is damaged" in text for kind, text in watch.lines if kind == "warning")
    assert watch.steps == [6]
    same_weights(tmp_path / "whole", tmp_path / "run")


def test_other_settings_or_images_are_refused(folder: Path, tmp_path: Path) -> None:
    piece = StopsAfter(2)
    settings = settle({**TINY, "data": str(folder), "steps": 6}, files.RunFolder(tmp_path / "run"), resume=False)
    run = files.RunFolder(tmp_path / "run")
    Run(prepare(settings, CPU, piece.say), settings, run, CPU, piece, lambda: piece.left <= 0)()
    with pytest.raises(UsageError, match="has other settings: steps is 6 there, 7 here"):
        train(folder, tmp_path / "run", resume=True, steps=7)
    changed = tmp_path / "changed"
    for kind in ("images", "masks"):
        (changed / kind).mkdir(parents=True)
        for file in sorted((folder / kind).iterdir())[1:]:
            (changed / kind / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UsageError, match="belongs to a run on other images"):
        train(changed, tmp_path / "run", resume=True)


def test_without_any_whole_checkpoint_the_run_begins_anew_and_says_so(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", steps=2, checks=2)
    for path in files.RunFolder(tmp_path / "run").checkpoints():
        path.write_bytes(path.read_bytes()[:1000])
    watch = Watcher()
    train(folder, tmp_path / "run", watch, resume=True)
    said = [text.split("; ")[-1] for _, text in watch.lines if "checkpoint-" in text]
    assert said == ["the checkpoint before it is tried", "the run begins anew"]
    assert watch.steps == [1, 2]


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_changed_file_of_the_same_name_is_refused(folder: Path, tmp_path: Path, part: str, kind: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    settings = settle({**TINY, "data": str(data), "steps": 6}, files.RunFolder(tmp_path / "run"), resume=False)
    before = prepare(settings, CPU, Watcher().say).identity
    assert prepare(settings, CPU, Watcher().say).identity == before
    pair = getattr(open_dataset(data).split(), part)[0]
    path = pair.image if kind == "image" else pair.masks[0]
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:12, :12] = 255 - pixels[:12, :12]
    Image.fromarray(pixels).save(path)
    assert prepare(settings, CPU, Watcher().say).identity != before


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder, tmp_path / "whole", steps=5, checks=5, **OFTEN)
    really, written = os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 32:  # in the middle of a checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoint-.* can't be written: No space left") as caught:
        train(folder, tmp_path / "run", steps=5, checks=5, **OFTEN)
    assert caught.value.hint == "free some space"
    monkeypatch.setattr(files.os, "fsync", really)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.endswith(".part")]
    assert len(files.RunFolder(tmp_path / "run").checkpoints()) == 2
    train(folder, tmp_path / "run", resume=True)
    same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_processes_lose_nothing(folder: Path, tmp_path: Path) -> None:
    assert kill_often(folder, tmp_path, kills=2, seed=1) >= 1


def test_a_folder_in_which_another_run_trains_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """Whatever the second is asked to do; and a folder that holds nothing but a lock is as good as empty."""
    first = start(folder, tmp_path / "run", steps=1000)
    assert first.stderr is not None
    try:
        deadline = time.monotonic() + 100
        while not newest(tmp_path / "run") and time.monotonic() < deadline:
            time.sleep(0.1)
        second = start(folder, tmp_path / "run", steps=1000)
        said = second.communicate(timeout=120)[1].decode()
        assert second.returncode == 3, said
        assert "error: another run is training in " in said
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    run = files.RunFolder(tmp_path / "run")
    with run.claimed():  # the system let go of the lock
        pass
    run.clear()
    run.check("new")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.usefixtures("signals_heard")
def test_an_interrupted_process_saves_and_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    process = start(folder, tmp_path / "run", steps=30)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(b"check:"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130, rest
    stopped = next(line for line in rest.splitlines() if line.startswith("interrupted:"))
    words = stopped.split("to go on: ")[1].split()
    assert words[:2] == ["ascseg", "train"]
    assert words[-1] == "--resume"
    steps = int(stopped.split("after step ")[1].split(";")[0])
    assert files.RunFolder(tmp_path / "run").checkpoints()[0].name == f"checkpoint-{steps:07}.safetensors"
    again = subprocess.Popen(
        [sys.executable, "-m", "ascseg_cli", *words[1:]], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert again.stderr is not None
    assert any(f"going on after step {steps}" in line for line in again.stderr)
    again.kill()
    again.communicate()
