"""The options of `ascseg evaluate`: name, value and help of each; those that predict has too are predict's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _option(panel: str, *names: str, value: str | None = None, words: str, **more: Any) -> Any:
    return typer.Option(*names, metavar=value, help=words, rich_help_panel=panel or None, **more)


_WHAT, _HOW, _STATISTICS, _OUTCOME = "What is compared", "How it is measured", "Statistics", "What comes out"

Data = Annotated[
    Path | None,
    typer.Argument(metavar="DATA", help="A labelled folder: an official layout, or images/ beside masks/."),
]
Pred = Annotated[Path | None, _option(_WHAT, "--pred", value="DIR", words="Masks of any tool, instead of DATA.")]
Truth = Annotated[Path | None, _option(_WHAT, "--truth", value="DIR", words="Their truth, paired by name.")]
Part = Annotated[str, _option(_WHAT, "--part", value="NAME", words="Of DATA: train, validation, test or all.")]
AllowUnpaired = Annotated[
    bool, _option(_WHAT, "--allow-unpaired", words="Score the rest where files have no partner.")
]
Compare = Annotated[
    Path | None,
    _option(_WHAT, "--compare", value="OTHER", words="Test against another folder of masks, or its --csv file."),
]
Strict = Annotated[
    bool, _option(_WHAT, "--strict", words="Refuse if the weights were trained on any of the images.")
]

PixelSize = Annotated[
    float | None, _option(_HOW, "--pixel-size", value="MM", words="Side of a pixel; distances are then in mm.")
]
Tolerance = Annotated[
    float, _option(_HOW, "--tolerance", value="LENGTH", words="Of the surface Dice, in pixels or mm.")
]
Protocol = Annotated[
    str, _option(_HOW, "--protocol", value="NAMES", words="To show: per_image,pooled,isic,polyp255 or all.")
]

Interval = Annotated[
    str, _option(_STATISTICS, "--interval", value="METHOD", words="Bootstrap: bca or percentile, 95 %.")
]
Group = Annotated[
    str | None,
    _option(
        _STATISTICS, "--group", value="RULE",
        words="Draw patients, not images: FILE.csv:COLUMN, or a pattern with one (group) in the path.",
    ),
]  # fmt: skip
Resamples = Annotated[
    int, _option(_STATISTICS, "--resamples", value="N", min=100, max=1_000_000, words="Of the bootstrap.")
]
Seed = Annotated[int, _option(_STATISTICS, "--seed", value="N", min=0, words="Of the bootstrap.")]

Csv = Annotated[Path | None, _option(_OUTCOME, "--csv", value="FILE", words="Write one row an image.")]
Report = Annotated[
    Path | None, _option(_OUTCOME, "--report", value="FILE", words="Write one HTML page with pictures and charts.")
]
Images = Annotated[
    Path | None,
    _option(_OUTCOME, "--images", value="DIR", words="Of --pred: photographs for the report, paired by name."),
]
Require = Annotated[
    str | None,
    _option(_OUTCOME, "--require", value="LIMITS", words="Exit with 4 unless met: dice>=0.85,pooled.iou>=0.8"),
]
RequireInterval = Annotated[
    bool, _option(_OUTCOME, "--require-interval", words="The interval's worse end must meet --require.")
]
AsJson = Annotated[bool, _option(_OUTCOME, "--json", words="One JSON object on stdout instead of the table.")]
