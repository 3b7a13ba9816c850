"""`ascseg train --devices N`: one process a device, watched, so that none outlives another's end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from ascseg_cli import exit_codes
from ascseg_cli.cli import say
from ascseg_cli.cli.interrupt import graceful

_Process = subprocess.Popen[bytes]
_GRACE = 20.0  # seconds that the others have to end by themselves once one has ended badly


def train_on_several(devices: int, arguments: Sequence[str]) -> int:
    """Run the command once for each device; returns the exit code of the run.

    arguments  the command line, without the program's name
    """
    port = _free_port()
    with tempfile.TemporaryFile() as unheard:
        team = [_start(rank, devices, port, arguments, unheard if rank else None) for rank in range(devices)]
        try:
            with graceful(lambda: _pass_on(team, signal.SIGTERM), lambda: _pass_on(team, signal.SIGKILL)):
                failed = _watch(team)
        finally:
            _pass_on(team, signal.SIGKILL)
        return _told(failed, team, unheard)


def _start(rank: int, devices: int, port: int, arguments: Sequence[str], unheard: IO[bytes] | None) -> _Process:
    """A process of the team; only the first one is heard. Signals reach it through the one that watches."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": devices, "MASTER_PORT": port}
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}
    command = [sys.executable, "-m", "ascseg_cli", *arguments]
    more: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": unheard} if unheard is not None else {}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **more)


def _watch(team: Sequence[_Process]) -> int | None:
    """Wait for all; the rank of the one that ended badly first, once it and the others are gone."""
    failed: int | None = None
    until = 0.0
    while any(process.poll() is None for process in team):
        if failed is None:
            failed = next((rank for rank, process in enumerate(team) if process.poll()), None)
            until = time.monotonic() + _GRACE
        elif time.monotonic() > until:
            _pass_on(team, signal.SIGKILL)
        elif any(process.returncode not in (None, 0, *_SPEAKING) for process in team):
            _pass_on(team, signal.SIGKILL)  # it can't have told the others, who wait for it
        time.sleep(0.05)
    return failed if failed is not None else next((r for r, p in enumerate(team) if p.returncode), None)


_SPEAKING = (exit_codes.USAGE, exit_codes.NOTHING_DONE, exit_codes.INTERRUPTED)


def _told(failed: int | None, team: Sequence[_Process], unheard: IO[bytes]) -> int:
    """Say what the first process hasn't said itself."""
    codes = [process.returncode for process in team]
    if failed is None or codes[0] in _SPEAKING:
        return codes[0]
    unheard.seek(0)
    words = [line for line in unheard.read().decode(errors="replace").splitlines() if line.startswith("error: ")]
    for line in words[:1]:
        say("process", line)
    how = f"by signal {-codes[failed]}" if codes[failed] < 0 else f"with code {codes[failed]}"
    say("error", f"process {failed + 1} of {len(team)} ended {how}; the others were stopped")
    say("hint", "the same command with --resume goes on from the last checkpoint")
    return exit_codes.NOTHING_DONE


def _pass_on(team: Sequence[_Process], number: int) -> None:
    for process in team:
        if process.poll() is None:
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
