"""`ascseg predict --ray` on a real cluster of several machines' processes, some of which die in the middle."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

IMAGES = 140
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@pytest.fixture(scope="module")
def cluster(s3: Any) -> Iterator[Any]:
    """A leader without workers and two machines with one core each, on loopback."""
    pytest.importorskip("ray", reason="the extra ray isn't installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        made.machines = [made.add_node(num_cpus=1, **SMALL) for _ in range(2)]
        yield made
        made.shutdown()


SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that take some hundredths of a second each, and one that is none."""
    folder = tmp_path_factory.mktemp("cluster") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(IMAGES):
        pixels = cv2.resize(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8), (500, 400))
        (folder / f"{number:03}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    (folder / "zz.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def command(drawn_weights: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `ascseg predict` in a process of its own."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        words = ["predict", *map(str, arguments), "--weights", str(drawn_weights), "--backend", "cpu"]
        words += ["--threshold", "0.40897"]
        return subprocess.Popen(
            [sys.executable, "-m", "ascseg_cli", *words, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def alone(command: Callable[..., subprocess.Popen[str]], photos: Path) -> tuple[dict[str, bytes], list[Any]]:
    """What one machine makes of the pictures."""
    output = photos.with_name("alone")
    _, stderr = finish(command(photos, "-o", output), 1)
    assert "1 failed" in stderr
    return comparable(in_folder(output))


def finish(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    return stdout, stderr


def in_folder(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def in_store(s3: Any, place: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{place}/"): s3.cat_file(name) for name in s3.find(place)}


def comparable(files: dict[str, bytes]) -> tuple[dict[str, bytes], list[Any]]:
    """Every file but the records, and the rows without `seconds`."""
    table = csv.DictReader(io.StringIO(files["results.csv"].decode(), newline=""))
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in table]
    records = ("results.csv", "run.json", "journal.jsonl", "journal/")
    return {name: content for name, content in files.items() if not name.startswith(records)}, rows


def times_recorded(files: dict[str, bytes]) -> Counter[str]:
    """How often the journal tells of each image."""
    journal = b"".join(files[name] for name in sorted(files) if name.startswith("journal"))
    return Counter(told["image"] for told in map(json.loads, journal.splitlines()) if "image" in told)


def workers_of(machine: Any) -> list[int]:
    """The processes that do the work there: children of its part of Ray."""
    parents = {started.process.pid for some in machine.all_processes.values() for started in some}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until(ready: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 90
    while not (value := ready()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found by /proc")
def test_a_killed_worker_and_a_lost_machine_change_nothing(
    cluster: Any, command: Callable[..., subprocess.Popen[str]], photos: Path, alone: Any
) -> None:
    output = photos.with_name("killed")
    process = command(photos, "-o", output, "--ray", cluster.address)
    wait_until(lambda: len(list(output.glob("masks/*.png"))) >= 5, process)
    victim = wait_until(lambda: workers_of(cluster.machines[0]), process)
    os.kill(victim[0], signal.SIGKILL)
    so_far = len(list(output.glob("masks/*.png")))
    wait_until(lambda: len(list(output.glob("masks/*.png"))) >= so_far + 3, process)
    cluster.remove_node(cluster.machines.pop(1), allow_graceful=False)
    cluster.machines.append(cluster.add_node(num_cpus=1, **SMALL))
    stdout, stderr = finish(process, 1)
    assert so_far < IMAGES
    assert "a worker was lost; " in stderr
    assert "2 workers of 1 thread in a Ray cluster of 3 machines" in stderr
    files = in_folder(output)
    assert comparable(files) == alone
    assert times_recorded(files) == {f"{number:03}.jpg": 1 for number in range(IMAGES)}
    lines = [json.loads(line)["image"] for line in stdout.splitlines()]
    assert lines == [row["image"] for row in alone[1]]


@pytest.mark.usefixtures("signals_heard")
def test_a_run_from_store_to_store_is_interrupted_and_goes_on(
    cluster: Any, command: Callable[..., subprocess.Popen[str]], photos: Path, alone: Any, s3: Any, bucket: str
) -> None:
    s3.put(str(photos), f"{bucket}/photos", recursive=True)
    words = (f"s3://{bucket}/photos", "--ray", cluster.address)
    process = command(*words)
    wait_until(lambda: s3.find(f"{bucket}/photos_ascseg/masks"), process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = finish(process, 130)
    assert "not reached; to go on: ascseg predict" in stderr
    statuses = [json.loads(line)["status"] for line in stdout.splitlines()]
    assert 0 < statuses.count("skipped") < IMAGES
    _, stderr = finish(command(*words, "--resume"), 1)
    assert "from an earlier run)" in stderr
    files = in_store(s3, f"{bucket}/photos_ascseg")
    assert comparable(files) == alone
    assert times_recorded(files) == {f"{number:03}.jpg": 1 for number in range(IMAGES)}


def test_what_keeps_a_run_from_the_cluster_is_one_line(
    cluster: Any, command: Callable[..., subprocess.Popen[str]], photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _, stderr = finish(command(photos, "-o", output, "--ray", "127.0.0.1:9"), 3)
    assert "error: no Ray cluster answers at 127.0.0.1:9" in stderr
    _, stderr = finish(command(photos, "-o", output, "--ray", cluster.address, "--threads", "64"), 3)
    assert "no machine with 64 cores" in stderr
    _, stderr = finish(command("-", "--ray"), 2)
    assert "--ray" in stderr
    assert not output.exists()


def test_without_ray_the_extra_is_named(photos: Path, tmp_path: Path, drawn_weights: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError", encoding="utf-8")
    words = ["predict", str(photos), "-o", str(tmp_path / "out"), "--ray", "--weights", str(drawn_weights)]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
         f"from ascseg_cli.cli import main; main({words!r})"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert run.returncode == 3
    assert run.stderr.splitlines()[-2:] == [
        "error: --ray needs the extra `ray`, which isn't installed",
        'hint: run: pip install "ascseg[ray]"',
    ]
