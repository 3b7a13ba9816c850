"""`ascseg predict`: images in, masks out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ascseg_cli.errors import UsageError

_WHERE, _HOW, _RUN = "Inputs and outputs", "How images are segmented", "How the run goes"


def predict(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Images, folders, patterns; - reads one image from stdin."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", metavar="NAME", help="Weights: isic2017, isic2018, ph2, kvasir or busi."),
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="Weights from a file.")] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", metavar="NAME", help="tiny, small or base, where a set has several.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Default: INPUT_ascseg beside the first input.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="FILE",
            help="Read input names from a file, one a line; - is stdin.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null", "-0", help="Names in --files-from end in NUL, not in a line's end.", rich_help_panel=_WHERE
        ),
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="Of masks,overlays,probabilities,polygons. Default: the first two.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an earlier run: redo only what isn't there whole.", rich_help_panel=_WHERE
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier run's files first.", rich_help_panel=_WHERE)
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Foreground is where p ≥ P. Default: the weights' own.", rich_help_panel=_HOW
        ),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Mean over the image and its flips: 4 times slower.", rich_help_panel=_HOW),
    ] = False,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Fill holes in the mask.", rich_help_panel=_HOW)
    ] = False,
    min_area: Annotated[
        int, typer.Option(metavar="PIXELS", help="Then drop smaller components.", rich_help_panel=_HOW)
    ] = 0,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Then keep only the largest component.", rich_help_panel=_HOW)
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=_RUN)
    ] = "auto",
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="auto, reference, cpu, gpu or mamba_ssm.", rich_help_panel=_RUN)
    ] = "auto",
    batch_size: Annotated[
        str, typer.Option(metavar="N", help="Images in one pass of the network, or auto.", rich_help_panel=_RUN)
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Default: what this process may use.", rich_help_panel=_RUN),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(metavar="N", help="Refuse images of more pixels.", rich_help_panel=_RUN)
    ] = 178_956_970,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, write nothing.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object an image on stdout.", rich_help_panel=_RUN)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Segment images: a mask and an overlay for each, results.csv with figures.

    Exits with 0 if all went well (empty masks too), 1 if some images failed,
    2 for wrong usage, 3 if nothing could be done, 130 if interrupted.

    Example:  ascseg predict examples/polyps --dataset kvasir
    """
    _check_combination(inputs or [], files_from, as_json, output, save, null)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    from ascseg_cli.cli import prediction, standard_input
    from ascseg_cli.inference.postprocess import Cleaning
    from ascseg_cli.inference.settings import Settings, parse_batch_size, parse_save
    from ascseg_cli.network.checkpoint import read_metadata

    file = _weights_file(dataset, weights, variant)
    settings = Settings(
        threshold=read_metadata(file).threshold if threshold is None else threshold,
        tta=tta,
        cleaning=Cleaning(fill_holes, min_area, keep_largest),
        save=parse_save(save or "masks,overlays"),
        max_pixels=max_pixels,
        batch_size=parse_batch_size(batch_size),
    )
    order = prediction.Order(
        inputs=inputs or [],
        weights=file,
        settings=settings,
        output=output,
        files_from=files_from,
        null=null,
        mode="resume" if resume else "overwrite" if overwrite else "new",
        device=device,
        backend=backend,
        threads=threads,
        as_json=as_json,
        quiet=quiet,
        arguments=context.obj if isinstance(context.obj, list) else sys.argv[1:],
    )
    if dry_run:
        raise typer.Exit(prediction.plan(order))
    raise typer.Exit(standard_input.filter_image(order) if inputs == ["-"] else prediction.carry_out(order))


def _check_combination(
    inputs: list[str], files_from: str | None, as_json: bool, output: Path | None, save: str | None, null: bool
) -> None:
    if not inputs and files_from is None:
        raise UsageError("no INPUT is given", "name images or folders: ascseg predict photos --dataset kvasir")
    if null and files_from is None:
        raise UsageError("-0 says how the names in --files-from end, and there is no --files-from")
    if "-" not in inputs:
        return
    if len(inputs) > 1 or files_from is not None:
        raise UsageError("- reads one image from stdin; it can't be combined with other inputs")
    if as_json:
        raise UsageError("- writes the mask to stdout, so --json has no place there")
    if save is not None and output is None:
        raise UsageError("- writes only the mask, to stdout; --save needs --output DIR")


def _weights_file(dataset: str | None, weights: Path | None, variant: str | None) -> Path:
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
