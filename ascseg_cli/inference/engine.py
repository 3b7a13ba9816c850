"""What turns pictures into probabilities: a weights file in torch, or an exported file in onnxruntime.

The rest of a run sees only `Engine`. Which of the two a file needs is told by its name, and neither package is
imported for the other's files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ascseg_cli.errors import BackendError, MissingTorchError, UnknownBackendError, UsageError
from ascseg_cli.network import checkpoint, exported
from ascseg_cli.network.metadata import Metadata

# How numbers are stored and multiplied: exactly; multiplied with 10 bits behind the point; stored with 7 as well
PRECISIONS = ("float32", "tf32", "bfloat16")


class Described(Protocol):
    """What run.json tells of a loaded network, wherever it is loaded."""

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

    device     auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N, mps; exported: auto or cpu
    backend    one of kernels.backend.NAMES; exported: auto or onnxruntime
    threads    of the network; None: torch's own number, or what the process may use
    precision  one of PRECISIONS; all but float32 only on a GPU, with the backend gpu
    Raises WeightsError, BackendError, MissingExtraError, UsageError.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; it must be 1 or more")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown", f"choose {', '.join(PRECISIONS)}")
    if exported.is_exported(weights):
        from ascseg_cli.inference.onnx_engine import OnnxEngine, check_choices

        check_choices(device, backend, precision)
        return OnnxEngine(exported.read(weights), where=str(weights), threads=threads)
    content = checkpoint.read(weights)
    if backend == "onnxruntime":
        raise BackendError(
            f"backend onnxruntime runs exported files; {weights} is none",
            f"run: ascseg export --weights {weights} --format onnx, and give that file",
        )
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingTorchError(error) from error
    from ascseg_cli.inference.torch_engine import TorchEngine

    return TorchEngine(content, device=device, backend=backend, precision=precision, threads=threads)
