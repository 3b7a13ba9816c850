"""`ascseg evaluate`: scores of weights on labelled images, or of one folder of masks against another."""

from __future__ import annotations

import math
from pathlib import Path

import typer

from ascseg_cli.cli import evaluation_options as own
from ascseg_cli.cli import options
from ascseg_cli.cli.predict import typed, weights_file
from ascseg_cli.errors import UsageError


def evaluate(
    context: typer.Context,
    data: own.Data = None,
    dataset: options.Dataset = None,
    weights: options.Weights = None,
    variant: options.Variant = None,
    pred: own.Pred = None,
    truth: own.Truth = None,
    part: own.Part = "all",
    allow_unpaired: own.AllowUnpaired = False,
    compare: own.Compare = None,
    strict: own.Strict = False,
    pixel_size: own.PixelSize = None,
    tolerance: own.Tolerance = 2.0,
    protocol: own.Protocol = "all",
    interval: own.Interval = "bca",
    group: own.Group = None,
    resamples: own.Resamples = 2000,
    seed: own.Seed = 0,
    csv: own.Csv = None,
    report: own.Report = None,
    images: own.Images = None,
    require: own.Require = None,
    require_interval: own.RequireInterval = False,
    as_json: own.AsJson = False,
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
    quiet: options.Quiet = False,
) -> None:
    """Score weights on labelled images (DATA), or masks of any tool (--pred, --truth).

    Every metric and rule is defined in docs/metrics.md. Exits with 0 if all was
    scored, 1 if some images failed, 2 for wrong usage, 3 if nothing could be
    scored or files have no partner, 4 if --require or --strict isn't met.

    Example:  ascseg evaluate examples/practice --dataset kvasir
    """
    _check_sources(data, pred, truth, dataset is not None or weights is not None)
    _check_images(images, report, pred)
    if data is None:
        _refuse_for_masks(
            {
                "--variant": variant is not None,
                "--part": part != "all",
                "--strict": strict,
                "--threshold": threshold is not None,
                "--tta": tta,
                "--fill-holes": fill_holes,
                "--min-area": min_area > 0,
                "--keep-largest": keep_largest,
            }
        )
    if not (0 <= tolerance < math.inf and (pixel_size is None or 0 < pixel_size < math.inf)):
        raise UsageError("--tolerance and --pixel-size are lengths: 0 or more, and a pixel has a size")
    from ascseg_cli.cli import evaluation
    from ascseg_cli.evaluation.metrics import Ruler

    order = evaluation.Order(
        ruler=Ruler(tolerance, pixel_size),
        plan=evaluation.plan_of(interval, resamples, seed),
        protocols=evaluation.parse_protocols(protocol),
        require=require,
        require_interval=require_interval,
        allow_unpaired=allow_unpaired,
        compare=compare,
        group=group,
        csv=csv,
        report=report,
        arguments=typed(context),
        as_json=as_json,
        threads=threads,
        quiet=quiet,
    )
    if pred is not None and truth is not None:
        raise typer.Exit(evaluation.of_masks(order, pred, truth, images))
    from ascseg_cli.cli import labelled_images
    from ascseg_cli.inference.postprocess import Cleaning
    from ascseg_cli.inference.settings import parse_batch_size

    network = labelled_images.Network(
        weights=weights_file(dataset, weights, variant),
        threshold=threshold,
        tta=tta,
        cleaning=Cleaning(fill_holes, min_area, keep_largest),
        device=device,
        backend=backend,
        precision=precision,
        batch_size=parse_batch_size(batch_size),
    )
    raise typer.Exit(labelled_images.of_weights(order, network, data or Path(), part, strict=strict))


def _check_sources(data: Path | None, pred: Path | None, truth: Path | None, weights: bool) -> None:
    if data is not None and (pred is not None or truth is not None):
        raise UsageError("DATA is a labelled folder for a network; --pred and --truth are masks: give one of them")
    if data is None and (pred is None or truth is None):
        raise UsageError(
            "give DATA with --dataset or --weights, or --pred with --truth",
            "ascseg evaluate Kvasir-SEG --dataset kvasir; ascseg evaluate --pred masks --truth truth",
        )
    if data is None and weights:
        raise UsageError(
            "--pred names masks that exist, so no weights are run", "leave --dataset and --weights out"
        )


def _check_images(images: Path | None, report: Path | None, pred: Path | None) -> None:
    if images is not None and (report is None or pred is None):
        raise UsageError("--images are the photographs in the --report of --pred; it has no use without both")


def _refuse_for_masks(given: dict[str, bool]) -> None:
    """Raises UsageError for an option that would do nothing."""
    if names := [name for name, used in given.items() if used]:
        raise UsageError(
            f"--pred names masks that exist, so {', '.join(names)} would do nothing",
            "leave it out, or evaluate DATA",
        )
