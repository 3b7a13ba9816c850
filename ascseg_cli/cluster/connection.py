"""The way to a Ray cluster: one that runs already, or one of this machine alone for the length of a run."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ascseg_cli.errors import BackendError, MissingExtraError
from ascseg_cli.inference.threads import usable_threads

_PATIENCE = 10.0  # seconds
_MEMORY = 100 << 20  # bytes of a local cluster's object store: what travels is names and figures


@contextlib.contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected, inside the block.

    address  "auto": what RAY_ADDRESS says, or the cluster that runs on this machine, or else a new one; "local": a
             new one; or HOST:PORT
    Raises MissingExtraError, BackendError.
    """
    ray = _load()
    with _stdout_for_data_only():
        _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _load() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers of every cluster
    os.environ.setdefault("RAY_worker_niceness", "0")  # else workers get what is left where others work too
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do from some release on
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--ray", "ray") from None
    return ray


def _connect(ray: ModuleType, address: str) -> None:
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == "auto" and (named := os.environ.get("RAY_ADDRESS")) not in (None, "", "auto"):
        address = str(named)
    if address == "auto":
        with contextlib.suppress(ConnectionError):
            return _init(ray, address="auto", **quietly)
    if address in ("auto", "local"):
        return _init(
            ray,
            address="local",
            num_cpus=usable_threads(),
            include_dashboard=False,
            object_store_memory=_MEMORY,
            **quietly,
        )
    try:
        _knock(address)
        _init(ray, address=address, **quietly)
    except (OSError, ValueError) as error:
        raise BackendError(
            f"no Ray cluster answers at {address}", "where one runs, `ray status` tells of it"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
        pass


def _init(ray: ModuleType, **options: Any) -> None:
    try:
        ray.init(**options)
    except ConnectionError:
        raise
    except (RuntimeError, ValueError, TimeoutError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise BackendError(
            f"Ray can't be used: {what}", "the cluster's and this Python's Ray must agree"
        ) from error


class _Data(io.TextIOBase):
    """A stdout whose text goes nowhere, and whose buffer is the real one's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.buffer = stream.buffer

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _stdout_for_data_only() -> Iterator[None]:
    """Ray prints what it thinks of lost workers to stdout, which belongs to data; we say it ourselves."""
    if sys.stdout is None:
        yield
        return
    with contextlib.redirect_stdout(_Data(sys.stdout)):
        yield
