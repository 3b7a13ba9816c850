"""What kind of file is wanted, and what every such file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ascseg_cli import __version__
from ascseg_cli.errors import UsageError
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.exported import KEY_EXPORT, Record
from ascseg_cli.network.metadata import KEY

Precision = Literal["float32", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
OPSET = 20


@dataclass(frozen=True)
class Form:
    """What kind of file is wanted.

    opset      of ONNX
    precision  float32, or float16: the scan, resizing and the result stay float32
    static     height and width of the only images that the file will take; None: any
    core_only  the network alone: `image` is its prepared input, (b, 3, h, w) float32
    torch.export has no opset, float32 alone, and the network alone for one size: for others see docs/export.md.
    """

    opset: int = OPSET
    precision: Precision = "float32"
    static: tuple[int, int] | None = None
    core_only: bool = False


def texts(checkpoint: Checkpoint, form: Form) -> dict[str, str]:
    """The texts inside the file, by key: the weights' own metadata, and what was made of them."""
    return {KEY: checkpoint.metadata.to_json(), KEY_EXPORT: record(checkpoint, form).model_dump_json()}


def record(checkpoint: Checkpoint, form: Form) -> Record:
    """How the file was exported."""
    return Record(
        weights_sha256=checkpoint.sha256,
        precision=form.precision,
        opset=form.opset,
        core_only=form.core_only,
        static=form.static,
        version=__version__,
    )


def form_of(kind: str, opset: int | None, precision: str, static: tuple[int, int] | None, core_only: bool) -> Form:
    """The form that options ask for. Raises UsageError where the format doesn't have it."""
    wanted = next((known for known in PRECISIONS if known == precision), None)
    if wanted is None:
        raise UsageError(f"precision {precision!r} is unknown", f"choose {' or '.join(PRECISIONS)}")
    if kind == "onnx":
        _check_opset(OPSET if opset is None else opset)
        return Form(OPSET if opset is None else opset, wanted, static, core_only)
    if opset is not None:
        raise UsageError("--opset is of ONNX; --format pt2 has none")
    if precision != "float32":
        raise UsageError(f"--format pt2 has float32 alone, not {precision}", "give --format onnx")
    if core_only and static is None:
        raise UsageError(
            "--core-only with --format pt2 needs a fixed size", "add --static HxW, or give --format onnx"
        )
    return Form(OPSET, "float32", static, core_only)


def _check_opset(opset: int) -> None:
    from onnx import defs

    if opset < OPSET:
        raise UsageError(f"opset {opset} is too low: DeformConv needs 19 and Gelu {OPSET}", "leave --opset out")
    if opset > defs.onnx_opset_version():
        raise UsageError(f"opset {opset} is unknown to this onnx, whose last is {defs.onnx_opset_version()}")
