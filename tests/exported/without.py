"""`ascseg` in a process where some packages can't be imported, and what it wrote."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# Last, on stderr, the most memory it had and what it loaded.
_PROGRAM = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise {error}
sys.meta_path.insert(0, Missing())
from ascseg_cli.cli import main
try:
    main()
finally:
    peak = next((line for line in open("/proc/self/status") if line.startswith("VmHWM")), "VmHWM: 0 kB").split()[1]
    loaded = [name for name in ("torch", "numba", "onnx") if name in sys.modules]
    print("END", peak, *loaded, file=sys.stderr)
"""
NOT_INSTALLED = 'ModuleNotFoundError(f"No module named {name!r}", name=name)'
BROKEN = 'OSError("libcudart.so.12: cannot open shared object file: No such file or directory")'


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str
    megabytes: float
    loaded: list[str]


def ascseg(
    *arguments: object, missing: tuple[str, ...] = ("torch",), error: str = NOT_INSTALLED, stdin: bytes = b""
) -> Outcome:
    """Run the command; error: what the import of `missing` raises."""
    if sys.platform != "linux":
        pytest.skip("memory is read from /proc")
    program = _PROGRAM.format(names=set(missing), error=error)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, input=stdin, capture_output=True, check=False)
    stderr, _, end = run.stderr.decode("utf-8").rpartition("END ")
    peak, *loaded = end.split()
    return Outcome(run.returncode, run.stdout.decode("latin-1"), stderr, int(peak) / 1024, loaded)


def files(folder: Path) -> dict[str, bytes]:
    """What results are made of: all but run.json, and the times in results.csv and the journal."""
    timed = ("run.json", "results.csv", "journal.jsonl")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in timed
    }
