"""The options of `ascseg train`: name, value and help of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ascseg_cli.cli.options import MOST_THREADS


def _option(panel: str, *names: str, value: str | None = None, words: str, **more: Any) -> Any:
    return typer.Option(*names, metavar=value, help=words, rich_help_panel=panel or None, **more)


_DATA, _HOW, _RUN = "Images", "How the network is trained", "How the run goes"

Data = Annotated[
    str | None,
    _option("", "--data", value="FOLDER", words="A data set: an official layout, or images/ beside masks/."),
]
Output = Annotated[Path | None, _option("", "--output", "-o", value="DIR", words="The run's folder.")]
Start = Annotated[
    str | None,
    _option("", "--from", value="NAME|FILE", words="Fine-tune these weights: kvasir, busi, … or a file."),
]
SplitFile = Annotated[
    str | None, _option(_DATA, "--split-file", value="CSV", words="image,part: train, validation or test.")
]
GroupBy = Annotated[
    str | None,
    _option(
        _DATA, "--group-by", value="RULE", words="What stays in one part: CSV:COLUMN or a regular expression."
    ),
]

Variant = Annotated[str | None, _option(_HOW, "--variant", value="NAME", words="tiny, small or base.")]
Size = Annotated[int | None, _option(_HOW, "--size", value="PX", words="The network's input, a multiple of 16.")]
Batch = Annotated[int | None, _option(_HOW, "--batch", value="N", words="Images in one step, two or more.")]
Steps = Annotated[int | None, _option(_HOW, "--steps", value="N", words="Length of the run in steps,")]
Epochs = Annotated[float | None, _option(_HOW, "--epochs", value="N", words="or in passes over the images,")]
Minutes = Annotated[
    float | None, _option(_HOW, "--minutes", value="N", words="or by the clock: such a run can't be repeated.")
]
Rate = Annotated[float | None, _option(_HOW, "--rate", value="R", words="Largest learning rate.")]
Seed = Annotated[int | None, _option(_HOW, "--seed", value="N", words="Of everything random. Default: 0.")]
Seeds = Annotated[
    int | None,
    _option(_HOW, "--seeds", value="N", min=2, words="Train N times, seed after seed; say mean and spread."),
]
Config = Annotated[
    Path | None, _option(_HOW, "--config", value="TOML", words="Settings from a file; options win over it.")
]
Set = Annotated[
    list[str] | None, _option(_HOW, "--set", value="KEY=VALUE", words="Any other setting, as in the file.")
]
PrintConfig = Annotated[
    bool,
    _option(_HOW, "--print-config", words="Print the settings as TOML and stop; without options, all there are."),
]

Device = Annotated[str | None, _option(_RUN, "--device", value="NAME", words="auto, cpu, cuda, cuda:N or mps.")]
Devices = Annotated[
    int | None,
    _option(_RUN, "--devices", value="N", min=1, words="Share each batch among N GPUs, or CPU processes."),
]
Threads = Annotated[
    int | None,
    _option(_RUN, "--threads", value="N", min=1, max=MOST_THREADS, words="Default: what this process may use."),
]
TensorBoard = Annotated[
    bool, _option(_RUN, "--tensorboard", words="Write events for TensorBoard too; needs the extra `tensorboard`.")
]
Resume = Annotated[bool, _option(_RUN, "--resume", words="Go on where the run in DIR stopped, if it did.")]
Overwrite = Annotated[bool, _option(_RUN, "--overwrite", words="Remove an earlier run's files first.")]
Quiet = Annotated[bool, _option(_RUN, "--quiet", "-q", words="Say only warnings and errors.")]
