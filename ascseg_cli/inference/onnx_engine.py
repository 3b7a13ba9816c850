"""A network as an ONNX graph in onnxruntime, on the CPU; without torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli.errors import (
    DeviceMemoryError,
    InputError,
    MissingExtraError,
    WeightsError,
)
from ascseg_cli.inference.engine import ONNXRUNTIME
from ascseg_cli.inference.threads import usable_threads
from ascseg_cli.inference.tta import prepared
from ascseg_cli.network.exported import Exported

if TYPE_CHECKING:
    import onnxruntime

_INPUT, _OUTPUT = "image", "probability"


@dataclass(frozen=True)
class Origin:
    """Where a graph comes from.

    where   the name of what the user gave, for errors
    sha256  of that
    again   what to do where the graph can't be run
    note    why onnxruntime runs it, where that isn't what the user asked for
    """

    where: str
    sha256: str
    again: str
    note: str = ""


class OnnxEngine:
    """A file of the form that `ascseg export` writes: pictures in, probabilities in their own size out.

    One image is one pass, so that its result can't depend on others. A file of the network alone (`--core-only`)
    takes prepared images, which are made and turned back as for torch.

    origin   of the graph
    threads  of one pass, or of all passes that run at once; None: what the process may use
    Raises WeightsError where onnxruntime can't run the file, MissingExtraError without onnxruntime.
    """

    backend, device, first_wait = ONNXRUNTIME, "cpu", ""
    takes_several = True

    def __init__(self, file: Exported, origin: Origin, *, threads: int | None) -> None:
        self.metadata, self.weights_sha256 = file.metadata, origin.sha256
        self.backend_note = origin.note
        self.takes_pixels = not file.record.core_only
        self._file, self._origin = file, origin
        self._threads = threads or usable_threads()
        self._session = self._open(self._threads)
        self._check()

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (h, w, 3) uint8 RGB -> themselves; of a file of the network alone (3, h', w') float32.

        Raises InputError where the file was exported for another size.
        """
        if not self.takes_pixels:
            return prepared(pixels, self.metadata)
        size = self._file.record.static
        if size is not None and size != pixels.shape[:2]:
            raise InputError(
                f"the image is {pixels.shape[0]}×{pixels.shape[1]} px, and the exported file takes only "
                f"{size[0]}×{size[1]} px",
                "export it again without --static",
            )
        return pixels

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Pictures (b, h, w, 3) uint8, or prepared images (b, 3, h, w) float32 -> (b, h, w) float32, 0..1.

        Raises WeightsError where the file's graph fails, DeviceMemoryError where memory doesn't hold a pass.
        """
        maps = [self._pass(image) for image in images]
        return maps[0] if len(maps) == 1 else np.concatenate(maps)

    def _pass(self, image: np.ndarray) -> np.ndarray:
        try:
            (probability,) = self._session.run([_OUTPUT], {_INPUT: image[None]})
        except Exception as error:  # its exceptions share no class of their own
            if "bad_alloc" in str(error) or "allocate memory" in str(error):
                h, w = image.shape[:2]
                raise DeviceMemoryError(f"not enough memory for this image ({h}×{w} px)") from error
            words = f"{self._origin.where} can't be run: {_brief(error)}"
            raise WeightsError(words, self._origin.again) from error
        wanted = (1, *(image.shape[:2] if self.takes_pixels else image.shape[1:]))
        if probability.shape != wanted:
            raise WeightsError(f"{self._origin.where}: its probabilities are {probability.shape}, not {wanted}")
        return np.asarray(probability)

    @contextlib.contextmanager
    def shared(self, parts: int) -> Iterator[Callable[[], None]]:
        """Inside, so many threads call `probabilities` at once, each with its share of the cores."""
        alone = self._session
        share = max(1, self._threads // parts)
        self._session = self._open(share) if share < self._threads else alone
        try:
            yield lambda: None
        finally:
            self._session = alone

    def _open(self, threads: int) -> onnxruntime.InferenceSession:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("running an exported file", "onnx") from error
        onnxruntime.set_default_logger_severity(4)  # what goes wrong comes as an exception; stderr is ours
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        # Waiting threads sleep: on a busy machine two threads took 0.26 CPU seconds a pass so, and 0.38 spinning.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # it keeps a plan for each size of picture that ever came
        try:
            return onnxruntime.InferenceSession(self._file.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no class of their own
            version = onnxruntime.__version__
            raise WeightsError(
                f"{self._origin.where}: onnxruntime {version} can't load it: {_brief(error)}",
                f"it takes onnxruntime 1.25 or newer; if that is here, {self._origin.again}",
            ) from error

    def _check(self) -> None:
        """Raise WeightsError unless inputs and outputs are what the file's record says."""
        where = self._origin.where
        wanted = ("tensor(uint8)", 4) if self.takes_pixels else ("tensor(float)", 4)
        got = {value.name: (value.type, len(value.shape)) for value in self._session.get_inputs()}
        if got != {_INPUT: wanted}:
            raise WeightsError(f"{where}: its inputs are {_words(got)}, not {_words({_INPUT: wanted})}")
        size, own = self._file.record.static, self.metadata.preprocessing.size
        if not self.takes_pixels and size not in (None, own):
            raise WeightsError(
                f"{where}: its network takes {size[0]}×{size[1]} px, "
                f"but its metadata prepares {own[0]}×{own[1]} px"
            )
        outputs = {value.name: (value.type, len(value.shape)) for value in self._session.get_outputs()}
        if outputs.get(_OUTPUT) != ("tensor(float)", 3):
            wanted_words = _words({_OUTPUT: ("tensor(float)", 3)})
            raise WeightsError(f"{where}: its outputs are {_words(outputs)}, not {wanted_words}")


def _brief(error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first)[:200]


def _words(values: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of {axes} axes" for name, (kind, axes) in values.items()) or "none"
