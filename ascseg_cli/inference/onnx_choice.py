"""What runs in onnxruntime, and with which options: exported files, and weights without torch.

The graph of weights is written in memory, by what `ascseg export` writes files with. It is the network alone:
images are prepared, and masks made, as for torch.
"""

from __future__ import annotations

from pathlib import Path

from ascseg_cli.errors import BackendError, MissingExtraError, MissingTorchError
from ascseg_cli.graphs.form import Form, texts
from ascseg_cli.inference.engine import NO_TORCH, ONNXRUNTIME
from ascseg_cli.inference.onnx_engine import OnnxEngine, Origin
from ascseg_cli.network import exported
from ascseg_cli.network.checkpoint import Checkpoint

_AGAIN = "export it again"


def open_exported(path: Path, *, device: str, backend: str, precision: str, threads: int | None) -> OnnxEngine:
    """The engine of an exported file. Raises WeightsError, BackendError, MissingExtraError."""
    if refused := _not_offered(device, backend, precision):
        why = {
            "device": "exported files run on the CPU",
            "backend": f"exported files are run by {ONNXRUNTIME}",
            "precision": "an exported file keeps the one that it was exported with",
        }
        raise _refusal(*refused, why, "or give the weights that the file was exported from")
    file = exported.read(path)
    return OnnxEngine(file, Origin(str(path), file.sha256, _AGAIN), threads=threads)


def open_weights(
    checkpoint: Checkpoint,
    path: Path,
    lack: ImportError | OSError | None,
    *,
    device: str,
    backend: str,
    precision: str,
    threads: int | None,
) -> OnnxEngine:
    """The engine of the weights that were read from `path`.

    lack  what torch's import raised, which is why onnxruntime runs; None: the user chose it
    Raises WeightsError, BackendError, MissingTorchError where torch is needed, MissingExtraError.
    """
    if refused := _not_offered(device, backend, precision):
        option, value = refused
        if lack is not None:
            hint = f"install torch; or leave --{option} out: {ONNXRUNTIME} then runs the weights on the CPU"
            raise MissingTorchError(lack, f"{option} {value}", hint) from lack
        why = {"device": f"{ONNXRUNTIME} runs on the CPU", "precision": f"{ONNXRUNTIME} runs weights in float32"}
        raise _refusal(option, value, why, "or --backend")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        if lack is not None:
            raise MissingTorchError(lack) from error
        raise MissingExtraError(f"running weights by {ONNXRUNTIME}", "export") from error
    note = "" if lack is None else _told(lack)
    origin = Origin(str(path), checkpoint.sha256, "run them in torch", note)
    return OnnxEngine(_exported(checkpoint, path), origin, threads=threads)


def _exported(checkpoint: Checkpoint, path: Path) -> exported.Exported:
    """The network of weights as an exported file that lies nowhere."""
    from ascseg_cli.graphs.to_onnx.file import content

    form = Form(core_only=True)
    return exported.parse(content(checkpoint, form, texts(checkpoint, form)), path)


def _told(lack: ImportError | OSError) -> str:
    missing = isinstance(lack, ModuleNotFoundError) and lack.name == "torch"
    return NO_TORCH if missing else f"torch can't be imported: {str(lack).partition(chr(10))[0]}"


def _not_offered(device: str, backend: str, precision: str) -> tuple[str, str] | None:
    """The first option that onnxruntime doesn't have, and its value."""
    offered = {
        "device": (device, ("auto", "cpu")),
        "backend": (backend, ("auto", ONNXRUNTIME)),
        "precision": (precision, ("float32",)),
    }
    return next(((option, value) for option, (value, known) in offered.items() if value not in known), None)


def _refusal(option: str, value: str, why: dict[str, str], instead: str) -> BackendError:
    return BackendError(f"{option} {value} can't be used: {why[option]}", f"leave --{option} out, {instead}")
