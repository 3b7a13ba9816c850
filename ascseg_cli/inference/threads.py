"""How many threads this process may use, and how they wait: what the system grants, not what the machine has.

A container on a 64-core host may own two of them; a thread for each core would then make everything slower.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def usable_threads(environment: Mapping[str, str] = os.environ, root: Path = _ROOT) -> int:
    """The smallest of: processors this process may run on, its cgroups' CPU quota, OMP_NUM_THREADS; at least 1.

    root  where /proc and /sys lie (another folder in tests)
    """
    limits = [_processors(), *_quotas(root), *_openmp(environment)]
    return max(1, min(limits))


def shorten_waits(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's waiting threads sleep after some microseconds, unless the user has set how they wait.

    An image takes hundreds of short parallel loops. GNU's library spins for milliseconds at the end of each; where
    other processes want the cores too, that made one image take ten times as long. Call it before torch is loaded.
    """
    if not environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        environment["GOMP_SPINCOUNT"] = "5000"


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _openmp(environment: Mapping[str, str]) -> Iterator[int]:
    # OMP_NUM_THREADS may be a list, one number for each level of nesting; the first is the outermost.
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        yield int(first)


def _quotas(root: Path) -> Iterator[int]:
    """Whole processors that the CPU quota of each cgroup above this process allows, rounded up."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            for folder in _and_above(root / "sys/fs/cgroup", path):
                yield from _whole(*_pair(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                for folder in _and_above(root / "sys/fs/cgroup" / mount, path):
                    quota, period = (_lines(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
                    yield from _whole(*quota[:1], *period[:1])


def _and_above(mount: Path, path: str) -> Iterator[Path]:
    # Inside a container the path may be the host's; the container's own limit then stands at the mount itself.
    inner = PurePosixPath(path.lstrip("/"))
    for part in (inner, *inner.parents):
        if ".." not in part.parts:
            yield mount / part


def _pair(file: Path) -> list[str]:
    return [word for line in _lines(file)[:1] for word in line.split()]


def _whole(*words: str) -> Iterator[int]:
    # "max" or -1: no limit.
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[0]) > 0 and int(words[1]) > 0:
        yield math.ceil(int(words[0]) / int(words[1]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
