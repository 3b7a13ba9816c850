"""What turns prepared images into probabilities; the pipeline takes any, so that another runtime can stand in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ascseg_cli.errors import BackendError, DeviceMemoryError, UnknownBackendError, UsageError
from ascseg_cli.network.checkpoint import Checkpoint, read
from ascseg_cli.network.metadata import Metadata

if TYPE_CHECKING:
    import torch


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

    takes_several  whether several threads may call `probabilities` at once, and should
    first_wait     how long the first image waits for its kernels, in words; empty where they are kept
    """

    takes_several: bool
    first_wait: str

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (b, 3, h, w) float32 -> probabilities (b, h, w) float32, 0..1."""
        ...

    def shared(self, parts: int) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Where `takes_several`: inside, so many threads call `probabilities`, each after what this gives."""
        ...


class TorchEngine:
    """The network in torch, with the kernels of one backend, at one of `PRECISIONS`."""

    def __init__(self, checkpoint: Checkpoint, *, device: str, backend: str, precision: str) -> None:
        from ascseg_cli.inference.replay import Replay
        from ascseg_cli.kernels.backend import first_wait, resolve
        from ascseg_cli.kernels.cuda import compile_ahead
        from ascseg_cli.network.asc_seg import ASCSeg

        self.metadata = checkpoint.metadata
        self.weights_sha256 = checkpoint.sha256
        self._device = select_device(device)
        self.device = str(self._device)
        self.backend, self.backend_note = resolve(backend, self._device.type)
        _check_precision(precision, self.device, self.backend)
        self._tf32, self._halves = precision != "float32", precision == "bfloat16"
        self.takes_several, self.first_wait = self.backend == "cpu", first_wait(self.backend)
        self._layout = _memory_format(self._device, self.backend)
        self._network = ASCSeg.from_checkpoint(checkpoint).to(self._device)
        self._network.to(memory_format=self._layout)  # type: ignore[call-overload]  # torch's stubs forget it
        self._run: Callable[[torch.Tensor], torch.Tensor] = self._network.probability
        self._forget: Callable[[], None] | None = None
        if self._device.type == "cuda":
            self._run = replay = Replay(self._run, compile_ahead if self.backend == "gpu" else None)
            self._forget = replay.forget

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Prepared images (b, 3, h, w) float32 -> probabilities (b, h, w) float32, 0..1.

        Raises DeviceMemoryError, with nothing of the pass left in the device's memory.
        """
        # On the CPU one by one: plain torch rounds otherwise in batches, by an image's place there.
        most = len(images) if self._device.type == "cuda" else 1
        try:
            return np.concatenate([self._pass(images[i : i + most]) for i in range(0, len(images), most)])
        except RuntimeError as error:
            if not _lacks_memory(error):
                raise
        if self._forget:
            self._forget()
        raise DeviceMemoryError(
            f"{self.device} has no memory for {len(images)} image{'s' * (len(images) > 1)} at once",
            "end what else uses it, or use --device cpu",
        )

    def _pass(self, images: np.ndarray) -> np.ndarray:
        import torch

        from ascseg_cli.kernels.backend import using

        x = torch.from_numpy(images).to(self._device).contiguous(memory_format=self._layout)
        on_gpu = self._device.type == "cuda"
        switch = torch.backends.cudnn.flags(allow_tf32=self._tf32) if on_gpu else contextlib.nullcontext()
        with torch.inference_mode(), using(self.backend), switch:
            p = self._run(x.bfloat16() if self._halves else x)
        return p[:, 0].float().cpu().numpy()

    @contextlib.contextmanager
    def shared(self, parts: int) -> Iterator[Callable[[], None]]:
        """Inside, so many threads call `probabilities` at once; each begins with what this gives.

        It keeps a thread's passes to its share of the cores; afterwards the caller has as many as before.
        """
        import torch

        before = torch.get_num_threads()
        try:
            yield lambda: torch.set_num_threads(max(1, before // parts))
        finally:
            torch.set_num_threads(before)


def open_engine(
    weights: Path,
    *,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
) -> TorchEngine:
    """Load a weights file onto a device.

    device     auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N, mps
    backend    one of kernels.backend.NAMES
    threads    of torch and of the compiled kernels; None leaves torch's own number
    precision  one of PRECISIONS; all but float32 only on a GPU, with the backend gpu
    Raises WeightsError, BackendError, UsageError.
    """
    checkpoint = read(weights)
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be 1 or more")
        import torch

        torch.set_num_threads(threads)
    return TorchEngine(checkpoint, device=device, backend=backend, precision=precision)


def _check_precision(wanted: str, device: str, backend: str) -> None:
    if wanted not in PRECISIONS:
        raise UsageError(f"precision {wanted!r} is unknown", f"choose {', '.join(PRECISIONS)}")
    if wanted != "float32" and backend != "gpu":
        raise BackendError(
            f"precision {wanted} needs the backend gpu; here {backend} runs on {device}", "leave --precision out"
        )


def _lacks_memory(error: RuntimeError) -> bool:
    # torch's own class exists since 2.5; cuBLAS, cuDNN and the CPU's allocator say it in words.
    return any(words in str(error) for words in ("out of memory", "ALLOC_FAILED", "can't allocate memory"))


def _memory_format(device: torch.device, backend: str) -> torch.memory_format:
    """Channels-last for plain torch on the CPU: 0.6 of the time of the other, median of 15 pairs at 256×256."""
    import torch

    plain = device.type == "cpu" and backend == "reference"
    return torch.channels_last if plain else torch.contiguous_format


def select_device(wanted: str) -> torch.device:
    """The device of that name, known to work. Raises BackendError with what to do."""
    import torch

    name, _, number = wanted.partition(":")
    known = name in ("auto", "cpu", "cuda", "mps")
    if not known or (number and (name != "cuda" or not number.isdecimal())):
        raise UnknownBackendError(f"device {wanted!r} is unknown", "choose auto, cpu, cuda, cuda:N or mps")
    if name == "auto":  # never mps by itself: the compiled CPU kernels are faster than plain torch there
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        _check_cuda(int(number or 0))
    if name == "mps" and not torch.backends.mps.is_available():
        raise BackendError("device 'mps' can't be used: this torch finds no Apple GPU", "use --device cpu")
    return torch.device(wanted)


def _check_cuda(number: int) -> None:
    import torch

    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "no NVIDIA GPU was found"
        raise BackendError(f"device 'cuda' can't be used: {why}", "use --device cpu; `ascseg doctor` says more")
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"device 'cuda:{number}' doesn't exist: this machine has {torch.cuda.device_count()}", "count from 0"
        )
