"""Thread counts, with made-up /proc and /sys folders as containers show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ascseg_cli.inference import threads
from ascseg_cli.inference.threads import shorten_waits


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return 16


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/../host\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/docker/1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
        ({"proc/self/cgroup": "rubbish\n\n0::\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 16),
    ],
)
@pytest.mark.usefixtures("processors")
def test_quotas_of_both_cgroup_versions(tmp_path: Path, files: dict[str, str], want: int) -> None:
    assert threads.usable_threads({}, system(tmp_path, files)) == want


@pytest.mark.parametrize(("value", "want"), [("3", 3), ("2,4", 2), ("64", 16), ("0", 16), ("", 16), ("many", 16)])
@pytest.mark.usefixtures("processors")
def test_openmp_lowers_but_never_raises(tmp_path: Path, value: str, want: int) -> None:
    assert threads.usable_threads({"OMP_NUM_THREADS": value}, tmp_path) == want


def test_without_affinity_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert threads.usable_threads({}, tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.usable_threads({}, tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no processor affinity")
def test_affinity_is_honoured(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads.usable_threads({}, tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_waits_are_shortened_unless_the_user_has_set_them() -> None:
    environment: dict[str, str] = {}
    shorten_waits(environment)
    assert environment == {"GOMP_SPINCOUNT": "5000"}
    for mine in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "1"}):
        environment = dict(mine)
        shorten_waits(environment)
        assert environment == mine
