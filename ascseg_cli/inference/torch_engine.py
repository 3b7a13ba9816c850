"""A weights file in torch, with the kernels of one backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ascseg_cli.errors import BackendError, DeviceMemoryError
from ascseg_cli.inference.engine import check_device_name
from ascseg_cli.inference.replay import CudaRecording, Replay, ReplayOfEachThread
from ascseg_cli.inference.tta import prepared
from ascseg_cli.kernels.backend import first_wait, resolve, unchanging, using
from ascseg_cli.kernels.cuda import compile_ahead
from ascseg_cli.network.asc_seg import ASCSeg
from ascseg_cli.network.checkpoint import Checkpoint


class TorchEngine:
    """The network in torch, with the kernels of one backend, at one of engine.PRECISIONS.

    threads  of torch and of the compiled kernels; None leaves torch's own number
    """

    takes_pixels = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        backend: str,
        precision: str,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
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
            ahead = compile_ahead if self.backend == "gpu" else None
            self._run = replay = Replay(self._run, CudaRecording, ahead)
            self._forget = replay.forget
        elif self.backend == "cpu":
            self._run = ReplayOfEachThread(self._run)

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (h, w, 3) uint8 RGB -> (3, h', w') float32."""
        return prepared(pixels, self.metadata)

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
        x = torch.from_numpy(images).to(self._device).contiguous(memory_format=self._layout)
        on_gpu = self._device.type == "cuda"
        switch = torch.backends.cudnn.flags(allow_tf32=self._tf32) if on_gpu else contextlib.nullcontext()
        with torch.inference_mode(), using(self.backend), unchanging(), switch:
            p = self._run(x.bfloat16() if self._halves else x)
        return p[:, 0].to("cpu", torch.float32, copy=True).numpy()  # the next pass overwrites p

    @contextlib.contextmanager
    def shared(self, parts: int) -> Iterator[Callable[[], None]]:
        """Inside, so many threads call `probabilities` at once; each begins with what this gives.

        It keeps a thread's passes to its share of the cores; afterwards the caller has as many as before.
        """
        before = torch.get_num_threads()
        try:
            yield lambda: torch.set_num_threads(max(1, before // parts))
        finally:
            torch.set_num_threads(before)


def _check_precision(wanted: str, device: str, backend: str) -> None:
    if wanted != "float32" and backend != "gpu":
        raise BackendError(
            f"precision {wanted} needs the backend gpu; here {backend} runs on {device}", "leave --precision out"
        )


def _lacks_memory(error: RuntimeError) -> bool:
    # torch's own class exists since 2.5; cuBLAS, cuDNN and the CPU's allocator say it in words.
    return any(words in str(error) for words in ("out of memory", "ALLOC_FAILED", "can't allocate memory"))


def _memory_format(device: torch.device, backend: str) -> torch.memory_format:
    """Channels-last for plain torch on the CPU: 0.6 of the time of the other, median of 15 pairs at 256×256."""
    plain = device.type == "cpu" and backend == "reference"
    return torch.channels_last if plain else torch.contiguous_format


def select_device(wanted: str) -> torch.device:
    """The device of that name, known to work. Raises BackendError with what to do."""
    check_device_name(wanted)
    name, _, number = wanted.partition(":")
    if name == "auto":  # never mps by itself: the compiled CPU kernels are faster than plain torch there
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda":
        _check_cuda(int(number or 0))
    if name == "mps" and not torch.backends.mps.is_available():
        raise BackendError("device 'mps' can't be used: this torch finds no Apple GPU", "use --device cpu")
    return torch.device(wanted)


def _check_cuda(number: int) -> None:
    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "no NVIDIA GPU was found"
        raise BackendError(f"device 'cuda' can't be used: {why}", "use --device cpu; `ascseg doctor` says more")
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"device 'cuda:{number}' doesn't exist: this machine has {torch.cuda.device_count()}", "count from 0"
        )
