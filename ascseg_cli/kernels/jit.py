"""How numba makes machine code of functions, and where it is kept. Loads no torch: evaluation can use it."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ascseg_cli.kernels import machine_code

_setting = threading.Lock()


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """`function` by numba, without the interpreter's lock; compiled, or loaded, at its first call."""
    import numba
    from numba.core import config

    folder = cache_folder()
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "cache": folder is not None,
    }
    configuration: Any = config  # filled from the environment, so its names are unknown to a type checker
    with _setting:  # numba takes the folder from its configuration, here and never again
        before = configuration.CACHE_DIR
        configuration.CACHE_DIR = str(folder or before)
        try:
            return numba.njit(**options)(function)
        finally:
            configuration.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between runs; None where no folder can be written.

    `NUMBA_CACHE_DIR`, else `ASCSEG_HOME`/numba, else numba in the user's cache folder; in it one folder for each
    state of our own sources, since numba notices only changes in the file of a kernel itself.
    """
    home = os.environ.get("ASCSEG_HOME")
    try:
        folder = (
            Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home or _user_cache()) / "numba")
            / machine_code.fingerprint()[:16]
        )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _user_cache() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("ascseg")


def call(kernel: Callable[..., None], *args: Any) -> None:
    """Run a compiled kernel, also where its machine code can't be kept."""
    try:
        kernel(*args)
    except OSError:  # the cache can't be written any more, but the machine code is in memory by now
        kernel(*args)
