"""What turns pictures into probabilities: torch with our kernels, or onnxruntime.

The rest of a run sees only `Engine`. An exported file, known by its name, runs in onnxruntime. So do weights where
torch isn't installed or the user says so, else in torch: which is faster is never asked. Only one is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ascseg_cli.errors import UnknownBackendError, UsageError
from ascseg_cli.kernels.backend import NAMES
from ascseg_cli.network import checkpoint, exported
from ascseg_cli.network.metadata import Metadata

# How numbers are stored and multiplied: exactly; multiplied with 10 bits behind the point; stored with 7 as well
PRECISIONS = ("float32", "tf32", "bfloat16")
ONNXRUNTIME = "onnxruntime"  # the one backend that isn't torch's
BACKENDS = (*NAMES, ONNXRUNTIME)
NO_TORCH = "torch isn't installed"  # why onnxruntime runs weights, as `backend_note` says it


class Described(Protocol):
    """What run.json tells of a loaded network, wherever it is loaded.

    backend_note  why this backend runs though another was to be expected; else empty
    """

    metadata: Metadata
    weights_sha256: str
    backend: str
    backend_note: str
    device: str


class Engine(Described, Protocol):
    """A loaded network and what its record says of it.

    takes_pixels   whether a picture goes in as it is, alone, and its probabilities come out in its own size
    takes_several  whether several threads may call `probabilities` at once, and should
    first_wait     how long the first image waits for its kernels, in words; empty where they are kept
    """

    takes_pixels: bool
    takes_several: bool
    first_wait: str

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """A picture (h, w, 3) uint8 RGB as `probabilities` takes it: itself, or (3, h', w') float32.

        Called from several threads. Raises InputError for one that the network can't take.
        """
        ...

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """What `prepared` gave, stacked -> probabilities (b, rows, columns) float32, 0..1."""
        ...

    def shared(self, parts: int) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Where `takes_several`: inside, so many threads call `probabilities`, each after what this gives."""
        ...


def check_device_name(wanted: str) -> None:
    """Raise UnknownBackendError unless there could be a device of that name."""
    name, _, number = wanted.partition(":")
    known = name in ("auto", "cpu", "cuda", "mps")
    if not known or (number and (name != "cuda" or not number.isdecimal())):
        raise UnknownBackendError(f"device {wanted!r} is unknown", "choose auto, cpu, cuda, cuda:N or mps")


def check_backend_name(wanted: str) -> None:
    """Raise UnknownBackendError unless there could be a backend of that name."""
    if wanted not in BACKENDS:
        raise UnknownBackendError(f"backend {wanted!r} is unknown", f"choose one of: {', '.join(BACKENDS)}")


def read_metadata(weights: Path) -> Metadata:
    """What a weights file or an exported file says of itself. Raises WeightsError."""
    return exported.read(weights).metadata if exported.is_exported(weights) else checkpoint.read_metadata(weights)


def open_engine(
    weights: Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
) -> Engine:
    """Load a weights file, or an exported file (`*.onnx`), onto a device.

    device     auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N, mps; in onnxruntime: auto or cpu
    backend    one of BACKENDS; auto: of torch's the fastest, or onnxruntime where torch can't be imported
    threads    of the network; None: torch's own number, or what the process may use
    precision  one of PRECISIONS; all but float32 only on a GPU, with the backend gpu
    Raises WeightsError, BackendError, MissingExtraError, UsageError.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it must be 1 or more")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown", f"choose {', '.join(PRECISIONS)}")
    check_device_name(device)
    check_backend_name(backend)
    if exported.is_exported(weights):
        from ascseg_cli.inference.onnx_choice import open_exported

        return open_exported(weights, device=device, backend=backend, precision=precision, threads=threads)
    content, lack = checkpoint.read(weights), None if backend == ONNXRUNTIME else _lack_of_torch()
    if backend == ONNXRUNTIME or lack is not None:
        from ascseg_cli.inference.onnx_choice import open_weights

        return open_weights(
            content, weights, lack, device=device, backend=backend, precision=precision, threads=threads
        )
    from ascseg_cli.inference.torch_engine import TorchEngine

    return TorchEngine(content, device=device, backend=backend, precision=precision, threads=threads)


def _lack_of_torch() -> ImportError | OSError | None:
    """Why torch can't be imported; None where it can."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: it is there, but a library that it loads is not
        return error
    return None
