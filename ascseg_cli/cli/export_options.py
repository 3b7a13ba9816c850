"""The options of `ascseg export`: name, value and help of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ascseg_cli.errors import UsageError

Weights = Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="Weights from a file.")]
Format = Annotated[str, typer.Option("--format", metavar="NAME", help="onnx or pt2 (torch.export).")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Default: named after the weights, in this folder."),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Images to compare on. Default: the examples of the package."),
]
Opset = Annotated[int | None, typer.Option("--opset", metavar="N", help="Of ONNX. Default: 20, the lowest.")]
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", help="float32, or float16, whose loss is measured."),
]
Static = Annotated[
    str | None, typer.Option("--static", metavar="HxW", help="Take images of this size alone, in pixels.")
]
CoreOnly = Annotated[
    bool, typer.Option("--core-only", help="The network alone, for images that are already prepared.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
AsJson = Annotated[bool, typer.Option("--json", help="The whole report as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.")]


def parse_static(text: str | None) -> tuple[int, int] | None:
    """Height and width of "480x640". Raises UsageError."""
    if text is None:
        return None
    h, mark, w = text.lower().partition("x")
    if not (mark and h.isascii() and h.isdecimal() and w.isascii() and w.isdecimal()) or not (
        0 < int(h) <= 65_535 and 0 < int(w) <= 65_535
    ):
        raise UsageError(
            f"--static is {text!r}; it must be height x width in pixels", "for example: --static 480x640"
        )
    return int(h), int(w)
