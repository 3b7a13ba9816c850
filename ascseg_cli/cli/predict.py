"""`ascseg predict`: images in, masks out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ascseg_cli.cli import options
from ascseg_cli.errors import UsageError


class Command(TyperCommand):
    """Lets `--ray` stand without its value, which the library has no way to say."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for place in reversed([place for place, word in enumerate(args) if word == "--ray"]):
            following = args[place + 1 :][:1]
            if not following or not re.fullmatch(r"auto|local|(ray://)?[^/]+:\d+", following[0]):
                args = [*args[: place + 1], "auto", *args[place + 1 :]]
        return super().parse_args(ctx, args)


def predict(
    context: typer.Context,
    inputs: options.Inputs = None,
    dataset: options.Dataset = None,
    weights: options.Weights = None,
    variant: options.Variant = None,
    output: options.Output = None,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    save: options.Save = None,
    report: options.Report = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    threshold: options.Threshold = None,
    tta: options.Tta = False,
    fill_holes: options.FillHoles = False,
    min_area: options.MinArea = 0,
    keep_largest: options.KeepLargest = False,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: options.Precision = "float32",
    batch_size: options.BatchSize = "auto",
    threads: options.Threads = None,
    max_pixels: options.MaxPixels = None,
    ray: options.Ray = None,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Segment images: a mask and an overlay for each, results.csv with figures.

    Exits with 0 if all went well (empty masks too), 1 if some images failed,
    2 for wrong usage, 3 if nothing could be done, 130 if interrupted.

    Example:  ascseg predict examples/polyps --dataset kvasir
    """
    _check_inputs(inputs or [], files_from, null)
    if inputs == ["-"]:
        if ray is not None:
            raise UsageError("- reads one image from stdin, which no cluster helps with; leave --ray out")
        _check_standard_input(as_json, save, output, dry_run, report)
    from ascseg_cli.cli import prediction, standard_input
    from ascseg_cli.inference.engine import read_metadata
    from ascseg_cli.inference.postprocess import Cleaning
    from ascseg_cli.inference.settings import MAX_PIXELS, Settings, parse_batch_size, parse_save

    mode, file = _mode(resume, overwrite), weights_file(dataset, weights, variant)
    settings = Settings(
        threshold=read_metadata(file).threshold if threshold is None else threshold,
        tta=tta,
        cleaning=Cleaning(fill_holes, min_area, keep_largest),
        save=parse_save(save or "masks,overlays"),
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        batch_size=parse_batch_size(batch_size),
        precision=precision,
    )
    order = prediction.Order(
        settings=settings,
        mode=mode,
        weights=file,
        inputs=inputs or [],
        output=output,
        files_from=files_from,
        null=null,
        report=report,
        device=device,
        backend=backend,
        threads=threads,
        ray=ray,
        as_json=as_json,
        quiet=quiet,
        arguments=typed(context),
    )
    if dry_run:
        raise typer.Exit(prediction.plan(order))
    raise typer.Exit(standard_input.filter_image(order) if inputs == ["-"] else prediction.carry_out(order))


def _check_inputs(inputs: list[str], files_from: str | None, null: bool) -> None:
    if not inputs and files_from is None:
        raise UsageError("no INPUT is given", "name images or folders: ascseg predict photos --dataset kvasir")
    if null and files_from is None:
        raise UsageError("-0 says how the names in --files-from end, and there is no --files-from")
    if "-" in inputs and (len(inputs) > 1 or files_from is not None):
        raise UsageError("- reads one image from stdin; it can't be combined with other inputs")


def _check_standard_input(
    as_json: bool, save: str | None, output: str | None, dry_run: bool, report: Path | None
) -> None:
    if as_json:
        raise UsageError("- writes the mask to stdout, so --json has no place there")
    if save is not None and output is None:
        raise UsageError("- writes only the mask, to stdout; --save needs --output DIR")
    if dry_run:
        raise UsageError("- reads one image from stdin; there is nothing that --dry-run could look up")
    if report is not None:
        raise UsageError("- reads one image from stdin; --report is a page of many images in files")


def _mode(resume: bool, overwrite: bool) -> str:
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    return "resume" if resume else "overwrite" if overwrite else "new"


def typed(context: typer.Context) -> list[str]:
    """The command line as it was typed, without the program's name."""
    return context.obj if isinstance(context.obj, list) else sys.argv[1:]


def weights_file(dataset: str | None, weights: Path | None, variant: str | None) -> Path:
    """The file that the options name, fetched if need be. Raises UsageError, WeightsError."""
    from ascseg_cli.weights.store import locate

    if (dataset is None) == (weights is None):
        raise UsageError(
            "give --dataset or --weights" + (", not both" if dataset else ""),
            "--dataset names the kind of images: isic2017, isic2018, ph2, kvasir or busi",
        )
    if weights is not None:
        if variant is not None:
            raise UsageError("--variant picks among a data set's weights; --weights names its file already")
        return weights
    return locate(dataset or "", variant)
