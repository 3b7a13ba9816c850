"""Files that appear whole or not at all, and are on the disk when they do."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ascseg_cli.errors import OutputError

PART = ".part"


def write_whole(path: Path, content: bytes) -> None:
    """`whole_file` of bytes at hand."""
    with whole_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file that takes its place when the block ends well, and vanishes when it doesn't.

    It is written beside `path`, flushed to the disk, then renamed over what stood there; options are `open`'s.
    A link stays, and its target is written; what is no file (/dev/stdout) is written into, as by a shell.
    Raises OutputError.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with open(path, mode, **options) as file:
                yield file
            return
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error


def is_part(name: str) -> bool:
    """Whether a file of that name is one that a killed process left half-written."""
    return name.startswith(".") and name.endswith(PART)


def output_error(path: Path, error: OSError) -> OutputError:
    """What to tell the user where `path` can't be written."""
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return OutputError(f"{path} can't be written: {error.strerror or error}", "free some space" if full else "")


def _sync_folder(folder: Path) -> None:
    # The new name must survive a power failure too; Windows can't open folders, and needs no such thing.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
