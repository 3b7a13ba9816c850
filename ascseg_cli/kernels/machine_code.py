"""How functions become machine code that is kept between runs. Loads no torch, so that evaluation can use it.

numba compiles a kernel at its first call, in about a second, and keeps the machine code in the user's cache
folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

config: Any = numba_config  # filled from the environment, so its names are unknown to a type checker

_setting = threading.Lock()


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as machine code without the interpreter's lock; compiled, or loaded, at its first call."""
    folder = cache_folder()
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "cache": folder is not None,
    }
    with _setting:  # numba takes the folder from its configuration, here and never again
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder or before)
        try:
            return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between runs; None where no folder can be written.

    `NUMBA_CACHE_DIR`, else `ASCSEG_HOME`/numba, else numba in the user's cache folder; in it one folder for each
    state of our own sources, since numba notices only changes in the file of a kernel itself.
    """
    home = os.environ.get("ASCSEG_HOME")
    try:
        folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home or _user_cache()) / "numba") / _fingerprint()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _user_cache() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("ascseg")


def _fingerprint() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in (
        here / "lanes.py",
        here / "elementary.py",
        here / "chain" / "codes.py",
        *sorted(here.glob("*/cpu*.py")),
    ):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def call(kernel: Callable[..., None], *args: Any) -> None:
    """Run a compiled kernel, also where its machine code can't be kept."""
    try:
        kernel(*args)
    except OSError:  # the cache can't be written any more, but the machine code is in memory by now
        kernel(*args)
