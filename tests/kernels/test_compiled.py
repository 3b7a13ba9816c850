"""Compiling once, keeping the machine code, and sharing threads: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cases import ScanCase

from ascseg_cli.kernels import backend, compiled
from ascseg_cli.kernels.selective_scan import selective_scan

USE = """
import numba, torch
from ascseg_cli.kernels import backend, machine_code
from ascseg_cli.kernels.deform_depthwise import cpu_kernels, deform_depthwise
with backend.using("cpu"):
    y = deform_depthwise(torch.ones(1, 1, 3, 3), torch.zeros(1, 18, 3, 3), torch.ones(1, 1, 3, 3))
assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]], y
stats = cpu_kernels.deform.stats
hits, misses = (sum(counts.values()) for counts in (stats.cache_hits, stats.cache_misses))
print(machine_code.cache_folder(), hits, misses, repr(numba.config.CACHE_DIR), sep="|")
"""


def run(script: str, **environment: str) -> str:
    """What `script` prints, in a fresh process."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "ASCSEG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean | environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_process_does_not_compile(tmp_path):
    first, second = (run(USE, ASCSEG_HOME=str(tmp_path)).split("|") for _ in range(2))
    assert first[1:] == ["0", "1", "''"]  # and numba's own setting is as it was
    assert second[1:] == ["1", "0", "''"]
    assert Path(first[0]).parent == tmp_path / "numba"


def test_without_a_writable_folder_it_runs_uncached(tmp_path):
    file = tmp_path / "file"
    file.touch()
    folder, hits, *_ = run(USE, NUMBA_CACHE_DIR=str(file / "folder")).split("|")
    assert (folder, hits) == ("None", "0")
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_fills_up_is_no_error():
    calls = []

    def kernel(first, last):
        calls.append((first, last))
        if len(calls) == 1:
            raise OSError(28, "No space left on device")

    compiled.launch(kernel, 1)
    assert calls == [(0, 1), (0, 1)]


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 64])
def test_every_task_runs_once(tasks):
    done, lock = [], threading.Lock()

    def kernel(first, last, target):
        with lock:
            target.extend(range(first, last))

    compiled.launch(kernel, tasks, done)
    assert sorted(done) == list(range(tasks))


def test_an_error_in_another_thread_is_raised():
    def kernel(first, last):
        if first > 0 or last == 4:
            raise ValueError("in a share")

    with pytest.raises(ValueError, match="in a share"):
        compiled.launch(kernel, 4)


def test_four_threads_at_once_agree():
    inputs = {k: t.detach() for k, t in ScanCase(4, 500, 4).inputs().items()}
    results: list[torch.Tensor] = []

    def work():
        with backend.using("cpu"):
            results.extend(selective_scan(**inputs) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(torch.equal(y, results[0]) for y in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_again():
    script = """
import os, warnings
from ascseg_cli.kernels import compiled
import torch
torch.set_num_threads(2)
warnings.simplefilter("ignore")
done = []
compiled.launch(lambda first, last: done.append(first), 2)
child = os.fork()
if child == 0:
    compiled.launch(lambda first, last: done.append(first), 2)
    os._exit(len(done))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(script) == "4"
