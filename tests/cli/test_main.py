"""The one place that maps errors to words and exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ascseg_cli import __version__, cli, errors


def ascseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ascseg_cli", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("no", "do"), 2),
        (errors.WeightsError("no", "do"), 3),
        (errors.BackendError("no", "do"), 3),
        (errors.OutputError("no", "do"), 3),
        (errors.GateError("no", "do"), 4),
    ],
)
def test_every_error_is_two_lines_and_a_code(
    error: errors.AscsegError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ascseg_cli.cli.app.app", fail)
    assert cli.run([]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: no\nhint: do\n"


def test_a_bug_is_told_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ascseg_cli.cli.app.app", lambda *_, **__: 1 / 0)
    assert cli.run([]) == 70
    assert "bug in ascseg: ZeroDivisionError" in capsys.readouterr().err
    assert cli.run(["--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 134. GiB"), "error: not enough memory: Unable to allocate 134. GiB"),
        (MemoryError(), "error: not enough memory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "error: /x/y can't be written: No space left on device",
        ),
    ],
)
def test_a_lack_of_memory_or_space_is_no_bug(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ascseg_cli.cli.app.app", fail)
    assert cli.run([]) == 3
    assert capsys.readouterr().err == f"{words}\n"


@pytest.mark.skipif(os.name != "posix", reason="only POSIX removes a folder that is in use")
@pytest.mark.parametrize("arguments", [["predict", "x.jpg", "-d", "kvasir"], ["doctor"], ["weights", "list"]])
def test_a_current_folder_that_was_removed_is_named(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.run(arguments) == 2
    assert capsys.readouterr().err == "error: the current folder was removed\nhint: change to one that exists\n"


def test_names_cannot_act_on_the_terminal() -> None:
    assert cli.printable("폴립 🙂 a\x1b[31m\n\udcff") == "폴립 🙂 a\\x1b[31m\\n\\udcff"


def test_version_and_usage() -> None:
    assert ascseg("--version").stdout == f"ascseg {__version__}\n"
    wrong = ascseg("segment")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['ascseg', '--help']\n"
        "from ascseg_cli.cli import run\n"
        "run(['--help'])\n"
        "heavy = ('torch', 'numba', 'numpy', 'cv2', 'pydantic', 'PIL')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert result.stderr.strip() == "[]"
    assert "predict" in result.stdout
