"""Progress: a live line on a terminal of 80 columns, plain lines in a pipe, nothing when quiet."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ascseg_cli.cli import progress
from ascseg_cli.cli.interrupt import graceful
from ascseg_cli.cli.progress import RunProgress, Search, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"),
        (3600, "1 h"), (18120, "5 h 2 min"), (187200, "2 d 4 h"), (-3, "0 s"),
    ],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_pipe_gets_plain_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with RunProgress(1000) as bar:
        for number in range(1000):
            now[0] += 0.125
            bar.advance(failed=number == 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "progress: 40 of 1,000 images, 1 failed, 8 images/s, 2 min left"
    assert len(lines) == 5
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_images_of_an_earlier_run_do_not_raise_the_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with RunProgress(100) as bar:
        for _ in range(80):
            bar.advance(worked=False)
        now[0] = 10.0
        bar.advance()
    assert "81 of 100 images, 0.1 images/s, 3 min 10 s left" in capsys.readouterr().err


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.0)
    with RunProgress(2, quiet=True) as bar:
        bar.advance()
        bar.stopping()
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_one_live_line_that_fits(monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with RunProgress(123_456) as bar:
        for _ in range(3):
            bar.advance(failed=True)
        time.sleep(0.3)
        bar.stopping()
        time.sleep(0.3)
    text = terminal.getvalue()
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", text)]
    assert any("3/123456" in line and "3 failed" in line for line in shown)
    assert any("Ctrl-C again" in line for line in shown)
    assert max(map(len, shown)) <= 80
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) == colour


@pytest.mark.parametrize("quiet", [False, True])
def test_a_search_is_told_of_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    search = Search(quiet=quiet)
    for count in range(1000, 61000, 1000):
        now[0] += 1
        search(count)
    told = [5, 35] if not quiet else []
    assert capsys.readouterr().err.splitlines() == [f"progress: {n},000 images found so far" for n in told]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(progress, "_FIRST_LINE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with RunProgress(2) as bar:
        bar.advance()
    assert terminal.getvalue().startswith("progress: 1 of 2 images")
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.usefixtures("signals_heard")
def test_the_first_signal_asks_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    asked = []
    with graceful(lambda: asked.append(1), lambda: asked.append(2)):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert asked == [1]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_the_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from ascseg_cli.cli.interrupt import graceful\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"  # a worker that would hold up an orderly end
        "with graceful(lambda: print('first', flush=True), lambda: print('second', flush=True)):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.01)\n"
        "print('still here')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout.split()) == (130, ["first", "second"])
