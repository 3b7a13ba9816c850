"""`ascseg train`: from a folder of images and masks to weights."""

from __future__ import annotations

import sys

import typer

from ascseg_cli.cli import train_options as options
from ascseg_cli.errors import UsageError


def train(
    context: typer.Context,
    data: options.Data = None,
    output: options.Output = None,
    start: options.Start = None,
    split_file: options.SplitFile = None,
    group_by: options.GroupBy = None,
    variant: options.Variant = None,
    size: options.Size = None,
    batch: options.Batch = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    minutes: options.Minutes = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    config: options.Config = None,
    sets: options.Set = None,
    print_config: options.PrintConfig = False,
    device: options.Device = None,
    devices: options.Devices = None,
    threads: options.Threads = None,
    tensorboard: options.TensorBoard = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Train weights on a folder of images and masks, from scratch or from other weights.

    The run's folder gets weights.safetensors, a model card, a log, curves and overlays.
    Killed at any moment, the run goes on with --resume and ends as if undisturbed.

    Exits with 0 when done, 2 for wrong usage, 3 if it can't be done, 130 if interrupted.

    Example:  ascseg train --print-config
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    flags = {
        "data": data, "from": start, "split_file": split_file, "group_by": group_by, "variant": variant,
        "size": size, "batch": batch, "steps": steps, "epochs": epochs, "minutes": minutes, "rate": rate,
        "seed": seed, "device": device,
    }  # fmt: skip
    from ascseg_cli.cli import training

    order = training.Order(
        given=training.read_given(config, sets or [], {k: v for k, v in flags.items() if v is not None}),
        output=output,
        seeds=seeds,
        mode="resume" if resume else "overwrite" if overwrite else "new",
        threads=threads,
        quiet=quiet,
        devices=devices,
        tensorboard=tensorboard,
        arguments=context.obj if isinstance(context.obj, list) else sys.argv[1:],
    )
    raise typer.Exit(training.print_config(order) if print_config else training.carry_out(order))
