"""The command line: one place that turns every error into words and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

from ascseg_cli import errors, exit_codes
from ascseg_cli.cli.interrupt import endings
from ascseg_cli.printable import printable

_EXIT_CODES: tuple[tuple[type[errors.AscsegError], int], ...] = (
    (errors.UsageError, exit_codes.USAGE),
    (errors.GateError, exit_codes.GATE_NOT_MET),
    (errors.AscsegError, exit_codes.NOTHING_DONE),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ascseg` and exit with one of the codes of exit_codes.py."""
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # whose encoding may lack what help says
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in set(endings()) - {signal.SIGINT}:
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: half-written files go, and it is said
    wanted = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(wanted))


def _replace_closed_streams() -> None:
    """Put the null device where a caller closed a standard stream (`2>&-`): else a file of ours gets its number.

    sys.stdout stays None, so that data for nobody can be told from data that arrived.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        _check_current_folder()
        from ascseg_cli.cli.app import app
        from ascseg_cli.inference.threads import shorten_waits

        shorten_waits()
        app(arguments, prog_name="ascseg", obj=arguments)
    except SystemExit as stop:
        if _is_ctrl_c(stop):
            _say_interrupted()
        return stop.code if isinstance(stop.code, int) else exit_codes.OK
    except KeyboardInterrupt:
        _say_interrupted()
        return exit_codes.INTERRUPTED
    except errors.AscsegError as error:
        return _refuse(error, arguments)
    except Exception as error:
        if (known := _as_ours(error)) is not None:
            return _refuse(known, arguments)
        _trace(arguments)
        say("error", f"this is a bug in ascseg: {type(error).__name__}: {error}")
        say("hint", "run the same command with --debug first (`ascseg --debug …`) and report what it prints")
        return exit_codes.BUG
    return exit_codes.OK


def _check_current_folder() -> None:
    """Raises UsageError where it was removed: libraries end the process for that without a word."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise errors.UsageError("the current folder was removed", "change to one that exists") from None


def _as_ours(error: Exception) -> errors.AscsegError | None:
    """What is nobody's bug, whichever library met it; None for all else."""
    if isinstance(error, ImportError) and error.name == "torch":
        return errors.MissingTorchError(error)
    if isinstance(error, MemoryError):
        return errors.AscsegError(": ".join(["not enough memory", *map(str, error.args)]))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return errors.OutputError(f"{error.filename or 'stdout'} can't be written: {error.strerror}")
    return None


def _refuse(error: errors.AscsegError, arguments: list[str]) -> int:
    _trace(arguments)
    say("error", error.message)
    if error.hint:
        say("hint", error.hint)
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))


def _is_ctrl_c(stop: BaseException | None) -> bool:
    """Whether Ctrl-C is what ended the command: typer turns it into an exit without a word."""
    while stop is not None and not isinstance(stop, KeyboardInterrupt):
        stop = stop.__context__
    return stop is not None


def _say_interrupted() -> None:
    # Where Ctrl-C came amid `exec` of a string, as in making a dataclass, `python -m` ends itself by SIGINT at its
    # exit, though the interrupt was caught here. The next such string clears that mark.
    exec("")
    say("interrupted", "stopped before the end")


def say(kind: str, text: str) -> None:
    """One line on stderr, `kind: text`; control characters are shown, never sent to the terminal.

    Where nobody can hear it the command goes on all the same: its outputs and its exit code tell.
    """
    try:
        print(f"{kind}: {printable(text)}", file=sys.stderr)
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # else Python fails again at its exit


def _trace(arguments: list[str]) -> None:
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
