"""The options of commands that segment images: name, value and help of each, in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _option(panel: str, *names: str, value: str | None = None, words: str, **more: Any) -> Any:
    return typer.Option(*names, metavar=value, help=words, rich_help_panel=panel or None, **more)


MOST_THREADS = 1024  # OpenMP ends the process without a word where the system refuses it a thread

_WHERE, _HOW, _RUN = "Inputs and outputs", "How images are segmented", "How the run goes"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Images, folders, patterns, s3:// URLs; - is one image on stdin."),
]
Dataset = Annotated[
    str | None,
    _option("", "--dataset", "-d", value="NAME", words="Weights: isic2017, isic2018, ph2, kvasir or busi."),
]
Weights = Annotated[
    Path | None,
    _option("", "--weights", value="FILE", words="Weights from a file, or an exported *.onnx.", readable=False),
]
Variant = Annotated[
    str | None, _option("", "--variant", value="NAME", words="tiny, small or base, where a set has several.")
]

Output = Annotated[
    str | None,
    _option(_WHERE, "--output", "-o", value="DIR", words="Default: INPUT_ascseg beside the first input."),
]
FilesFrom = Annotated[
    str | None,
    _option(_WHERE, "--files-from", value="FILE", words="Read input names from a file, one a line; - is stdin."),
]
Null = Annotated[
    bool, _option(_WHERE, "--null", "-0", words="Names in --files-from end in NUL, not in a line's end.")
]
Save = Annotated[
    str | None,
    _option(
        _WHERE, "--save", value="KINDS", words="Of masks,overlays,probabilities,polygons. Default: the first two."
    ),
]
Report = Annotated[
    Path | None,
    _option(
        _WHERE, "--report", value="FILE", words="Write one HTML page to look the masks through, least sure first."
    ),
]
Resume = Annotated[
    bool, _option(_WHERE, "--resume", words="Go on with an earlier run: redo only what isn't there whole.")
]
Overwrite = Annotated[bool, _option(_WHERE, "--overwrite", words="Remove an earlier run's files first.")]

Threshold = Annotated[
    float | None,
    _option(_HOW, "--threshold", value="P", words="Foreground is where p ≥ P. Default: the weights' own."),
]
Tta = Annotated[bool, _option(_HOW, "--tta", words="Mean over the image and its flips: 4 times slower.")]
FillHoles = Annotated[bool, _option(_HOW, "--fill-holes", words="Fill holes in the mask.")]
MinArea = Annotated[int, _option(_HOW, "--min-area", value="PIXELS", words="Then drop smaller components.")]
KeepLargest = Annotated[bool, _option(_HOW, "--keep-largest", words="Then keep only the largest component.")]

Device = Annotated[str, _option(_RUN, "--device", value="NAME", words="auto, cpu, cuda, cuda:N or mps.")]
Backend = Annotated[
    str, _option(_RUN, "--backend", value="NAME", words="auto, reference, cpu, gpu, mamba_ssm or onnxruntime.")
]
Precision = Annotated[
    str, _option(_RUN, "--precision", value="NAME", words="float32; faster on a GPU: tf32 or bfloat16.")
]
BatchSize = Annotated[
    str, _option(_RUN, "--batch-size", value="N", words="Images in one pass of the network, or auto.")
]
Threads = Annotated[
    int | None,
    _option(_RUN, "--threads", value="N", min=1, max=MOST_THREADS, words="Default: what this process may use."),
]
MaxPixels = Annotated[
    int | None,
    _option(_RUN, "--max-pixels", value="N", words="Refuse images of more pixels. Default: 178,956,970."),
]
Ray = Annotated[
    str | None,
    _option(_RUN, "--ray", value="[ADDRESS]", words="Run on a Ray cluster: HOST:PORT, local, or the one at hand."),
]
DryRun = Annotated[bool, _option(_RUN, "--dry-run", words="Say what would be done, write nothing.")]
AsJson = Annotated[bool, _option(_RUN, "--json", words="One JSON object an image on stdout.")]
Quiet = Annotated[bool, _option(_RUN, "--quiet", "-q", words="Say only warnings and errors.")]
