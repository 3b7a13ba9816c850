"""Freed memory stays with the process: counted by the pages that the system has to make."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
import torch
from ascseg_cli.training.memory import keep_freed
keep_freed()
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (12_000_000, 2_000_000):  # 48 MB, more than GNU's library ever keeps by itself; 8 MB
        torch.empty(size).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(step(), [step() for _ in range(20)][-1])  # pieces too short for a block and its alignment grow together
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't GNU's")
@pytest.mark.parametrize("mine", [None, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_freed_memory_is_used_again_unless_the_user_has_set_how_it_goes(mine):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PAGES], env=environment | (mine or {}), capture_output=True, text=True, check=True
    )
    first, last = map(int, done.stdout.split())
    assert first > 1000  # of 4 KiB, with few of 2 MiB
    assert (last > 1000) == (mine is not None)
