"""Compiling once, keeping the machine code, and sharing threads: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import ScanCase

from ascseg_cli.kernels import backend, compiled, machine_code
from ascseg_cli.kernels.chain import Chain, chain
from ascseg_cli.kernels.channel_gate import channel_gate
from ascseg_cli.kernels.deform_depthwise import deform_depthwise
from ascseg_cli.kernels.llvm_code import KERNELS
from ascseg_cli.kernels.nearest import nearest_squares
from ascseg_cli.kernels.selective_scan import selective_scan
from ascseg_cli.kernels.weighted_rows import weighted_rows
from ascseg_cli.network.focus import ChannelAttentionBlock
from ascseg_cli.network.layers import double
from ascseg_cli.network.mamba import Mamba

USE = """
import sys, torch
from ascseg_cli.kernels import backend, jit, machine_code
from ascseg_cli.kernels.deform_depthwise import deform_depthwise
made = []
make = machine_code._Processor._made
machine_code._Processor._made = lambda self, packed: made.append(1) or make(self, packed)
with backend.using("cpu"):
    y = deform_depthwise(torch.ones(1, 1, 3, 3), torch.zeros(1, 18, 3, 3), torch.ones(1, 1, 3, 3))
assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]], y
print(jit.cache_folder(), len(made), "numba" in sys.modules, sep="|")
"""

WITH_NUMBA = "from ascseg_cli.kernels import machine_code; machine_code.fits = lambda: False\n" + USE


def run(script: str, **environment: str) -> str:
    """What `script` prints, in a fresh process."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "ASCSEG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean | environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


needs_llvm = pytest.mark.skipif(not machine_code.usable(), reason="this LLVM is too old for the kernels' code")


@needs_llvm
def test_a_second_process_does_not_compile(tmp_path):
    first, second = (run(USE, ASCSEG_HOME=str(tmp_path)).split("|") for _ in range(2))
    assert first[1:] == ["2", "False"]  # `pack` and `deform`
    assert second[1:] == ["0", "False"]
    assert Path(first[0]).parent == tmp_path / "numba"
    assert [path.suffix for path in Path(first[0]).iterdir()] == [".o", ".o"]


@needs_llvm
def test_spoilt_machine_code_is_made_again(tmp_path):
    run(USE, ASCSEG_HOME=str(tmp_path))
    (kept,) = tmp_path.rglob("*.deform.*.o")
    whole = kept.read_bytes()
    for spoilt in (b"", whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1])):
        kept.write_bytes(spoilt)
        assert run(USE, ASCSEG_HOME=str(tmp_path)).split("|")[1] == "1"
        assert kept.read_bytes() == whole


@needs_llvm
def test_without_a_writable_folder_it_runs_uncached(tmp_path):
    file = tmp_path / "file"
    file.touch()
    folder, made, _ = run(USE, NUMBA_CACHE_DIR=str(file / "folder")).split("|")
    assert (folder, made) == ("None", "2")
    assert list(tmp_path.iterdir()) == [file]


def test_code_of_other_sources_is_left_to_numba(tmp_path):
    first, second = (run(WITH_NUMBA, ASCSEG_HOME=str(tmp_path)).split("|") for _ in range(2))
    assert first[1:] == second[1:] == ["0", "True"]
    assert len(list(tmp_path.rglob("cpu_kernels.deform-*.nbc"))) == 1


def test_the_llvm_code_is_of_the_present_sources():
    assert machine_code.fits(), "run: python -m ascseg_cli.kernels.llvm_code"
    names = {path.name.removesuffix(".ll.xz") for path in machine_code.FOLDER.glob("*.xz")}
    assert names == {".".join(place) for place in KERNELS}


@needs_llvm
def test_this_llvm_takes_all_code():
    for place in KERNELS:
        assert machine_code.entry(".".join(place), None) is not None


def kinds(arguments: tuple[object, ...]) -> str:
    """Arguments as in `llvm_code.KERNELS`."""
    letters = {"float32": "f", "float64": "d", "int64": "l", "uint8": "u"}
    found = ""
    for argument in arguments:
        if isinstance(argument, machine_code.Memory):
            argument = argument.array()
        if isinstance(argument, np.ndarray):
            found += letters[str(argument.dtype)]
        elif isinstance(argument, tuple):
            found += str(len(argument)) if len(argument) < 10 else f"{{{len(argument)}}}"
        else:
            found += "b" if isinstance(argument, bool) else "i"
    return found


def test_operators_pass_what_the_llvm_code_takes(monkeypatch):
    """Nothing else would notice an array of another type before the kernel reads beyond it."""
    seen = {}
    shares = compiled.Kernel.shares

    def watched(self, *args):
        seen[self._module, self._name] = kinds(args)
        return shares(self, *args)

    monkeypatch.setattr(compiled.Kernel, "shares", watched)
    torch.manual_seed(0)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    weight, offset = torch.randn(4, 1, 3, 3), torch.randn(1, 18, 6, 6)
    inputs = ScanCase(1, 5, 4).inputs()
    mamba = Mamba(4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with backend.using("cpu"):
        chain(x, Chain(torch.nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.nn.MaxPool2d(2))).sum().backward()
        chain(x, Chain(torch.nn.LayerNorm(4), torch.nn.BatchNorm2d(4), double())).sum().backward()
        deform_depthwise(x, offset, weight).sum().backward()
        selective_scan(**{k: t.requires_grad_() for k, t in inputs.items()}).sum().backward()
        mamba(torch.randn(1, 5, 4)).sum().backward()
        with torch.no_grad():
            channel_gate(x, ChannelAttentionBlock(4).eval().conv)
    nearest_squares(np.zeros((1, 2), np.int64), np.ones((1, 2), np.int64), (2, 2))
    for kind in (np.uint8, np.float32):
        weighted_rows(np.zeros((2, 3), kind), np.zeros((1, 2), np.int64), np.zeros((1, 2), np.float32))
    assert seen == KERNELS


def test_words_are_laid_out_as_the_code_reads_them():
    numbers = np.arange(5, dtype=np.float32)
    place = numbers.ctypes.data
    assert list(machine_code.words(1, numbers, (7, 8), True)) == [1, 0, 0, 5, 4, place, 5, 4, 7, 8, 1]


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
