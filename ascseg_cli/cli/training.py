"""What `ascseg train` does once its options are read: settles the settings, trains, and says what came of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ascseg_cli import exit_codes
from ascseg_cli.cli import say
from ascseg_cli.cli.interrupt import graceful
from ascseg_cli.cli.progress import duration
from ascseg_cli.cli.several import train_on_several
from ascseg_cli.cli.train_progress import TrainProgress
from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.inference.threads import usable_threads
from ascseg_cli.training import events, seeds, teacher
from ascseg_cli.training import team as teams
from ascseg_cli.training.configuration import merged, read_file, read_pair, template, to_toml
from ascseg_cli.training.files import SEEDS, SETTINGS, TEACHER, WEIGHTS, RunFolder
from ascseg_cli.training.log import Row
from ascseg_cli.training.material import Material, prepare, settle
from ascseg_cli.training.run import Outcome, Run
from ascseg_cli.training.settings import RunSettings
from ascseg_cli.training.team import Team


@dataclass(frozen=True)
class Order:
    """Everything the user asked for.

    given      settings from file and flags, not yet checked
    seeds      how many runs; None: one, in `output` itself
    mode       new, resume or overwrite
    devices    how many processes share the run; None: one, or as many as torchrun started
    arguments  the command line as it was typed, without the program's name
    """

    given: dict[str, Any]
    output: Path | None = None
    seeds: int | None = None
    mode: str = "new"
    threads: int | None = None
    quiet: bool = False
    devices: int | None = None
    tensorboard: bool = False
    arguments: list[str] = field(default_factory=list)

    def folders(self) -> list[tuple[RunFolder, dict[str, Any]]]:
        """The folder of each run, and what is given for it. Raises UsageError."""
        if self.output is None:
            raise UsageError("no folder for the run is given", "ascseg train --data FOLDER --output RUN_FOLDER")
        if self.seeds is None:
            return [(RunFolder(self.output), self.given)]
        first = self.given.get("seed", 0)
        if not isinstance(first, int):
            raise UsageError(f"setting seed: must be a whole number, got {first!r}")
        numbers = range(first, first + self.seeds)
        return [(RunFolder(self.output / f"seed-{n}"), {**self.given, "seed": n}) for n in numbers]


def read_given(config: Path | None, sets: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The user's settings: the file's, then `--set`, then the options. Raises UsageError."""
    return merged(read_file(config) if config else {}, *map(read_pair, sets), flags)


def print_config(order: Order) -> int:
    """The settings that a run would have, on stdout; without data every setting there is, with its meaning."""
    if not order.given:
        sys.stdout.write(template())
    else:
        folder = RunFolder(order.output or Path())
        sys.stdout.write(to_toml(settle(order.given, folder, resume=order.mode == "resume")))
    return exit_codes.OK


def carry_out(order: Order) -> int:
    """Train; returns the exit code."""
    import torch

    from ascseg_cli.inference.torch_engine import select_device

    if order.tensorboard:
        events.check_extra()
    runs = order.folders()
    top = RunFolder(order.output or Path())
    member = teams.called()
    if member.leads:
        top.check(order.mode)
        _check_seeds(order, top)
    settled = [settle(given, folder, resume=order.mode == "resume") for folder, given in runs]
    teams.check(settled[0], order.devices or member.size)
    if settled[0].teacher != "none" and not all(_has_teacher(folder, order.mode) for folder, _ in runs):
        teacher.first_weights()  # said now if its package is missing, not once the images are read
    if order.devices and order.devices > 1 and member.size == 1:
        _check_devices(order.devices, settled[0].device)
        return train_on_several(order.devices, order.arguments)
    device = select_device(teams.device_of(member, settled[0].device))
    torch.set_num_threads(order.threads or max(1, usable_threads() // member.size))
    order = replace(order, quiet=order.quiet or not member.leads)
    material = prepare(settled[0], device, _teller(member, order.quiet))
    with top.claimed() if member.leads else contextlib.nullcontext():
        teams.join(member, device)
        if order.mode == "overwrite" and member.leads:
            top.clear()
        if member.size > 1 and member.leads and device.type == "cuda":
            say(
                "warning",
                "on several GPUs norms are shared, so the network runs by torch's layers: two make a sixteenth "
                "of one's images a second; they are for what one GPU's memory can't hold",
            )
        try:
            return _train_all(order, runs, settled, material, device, member)
        finally:
            teams.leave(member)


def _train_all(
    order: Order, runs: list[Any], settled: list[RunSettings], material: Material, device: Any, member: Team
) -> int:
    top = RunFolder(order.output or Path())
    last: dict[int, Row] = {}
    for (folder, _), settings in zip(runs, settled):
        outcome = _one(order, material, settings, folder, device, member)
        if not outcome.finished:
            if member.leads:
                where = f"saved after step {outcome.steps:,}" if outcome.steps else "before the run's first step"
                say("interrupted", f"{where}; to go on: {_resuming(order.arguments)}")
            return exit_codes.INTERRUPTED
        last[settings.seed] = outcome.rows[-1]
    if order.seeds is not None and member.leads:
        top.write(SEEDS, seeds.to_csv(last))
        for line in seeds.summary(last):
            say("done", line)
    return exit_codes.OK


def _one(
    order: Order, material: Material, settings: RunSettings, folder: RunFolder, device: Any, member: Team
) -> Outcome:
    if order.seeds is not None and not order.quiet:
        say("note", f"seed {settings.seed}")
    stop, parent = threading.Event(), os.getppid()

    def wants_stop() -> bool:
        return stop.is_set() or (member.size > 1 and os.getppid() != parent)  # nobody watches the team any more

    with TrainProgress(settings, quiet=order.quiet) as progress:
        run = Run(material, settings, folder, device, progress, wants_stop, member, with_events=order.tensorboard)

        def end_well() -> None:
            stop.set()
            progress.stopping()

        with graceful(end_well, progress.close):
            try:
                outcome = run()
            except OutputError as error:
                raise OutputError(
                    error.message, f"{error.hint or 'mend that'}; then: {_resuming(order.arguments)}"
                ) from error
    if outcome.finished and member.leads:
        _say_done(outcome, folder, order.quiet)
    return outcome


def _say_done(outcome: Outcome, folder: RunFolder, quiet: bool) -> None:
    last = outcome.rows[-1]
    weights = folder.root / WEIGHTS
    if not quiet:
        figures = f"validation Dice {last.validation_dice:.4f}, IoU {last.validation_iou:.4f}"
        say("done", f"{outcome.steps:,} steps in {duration(last.seconds)}: {figures} -> {folder.root}")
        say("to use", f"ascseg predict IMAGES --weights {shlex.quote(str(weights))}")
    print(weights)


def _check_seeds(order: Order, top: RunFolder) -> None:
    """A run of one seed can't go on as one of several, nor the other way round."""
    if order.mode != "resume" or not top.root.is_dir():
        return
    several = any(path.name.startswith("seed-") for path in top.root.iterdir())
    if several and order.seeds is None:
        raise UsageError(f"{top.root} holds runs of several seeds", "add --seeds N as it was")
    if not several and order.seeds is not None and top.has(SETTINGS):
        raise UsageError(f"{top.root} holds a run of one seed", "leave out --seeds, or give another --output")


def _has_teacher(folder: RunFolder, mode: str) -> bool:
    return mode == "resume" and folder.has(TEACHER)


def _check_devices(devices: int, wanted: str) -> None:
    """Whether there are so many; the processes then need not find out one by one."""
    import torch

    from ascseg_cli.inference.torch_engine import select_device

    if select_device(teams.device_of(Team(0, devices), wanted)).type == "cuda":
        there = torch.cuda.device_count()
        if devices > there:
            raise UsageError(f"--devices is {devices}, but this machine has {there} GPUs", f"--devices {there}")


def _teller(member: Team, quiet: bool) -> Any:
    def tell(kind: str, text: str) -> None:
        if member.leads and not (quiet and kind == "note"):
            say(kind, text)

    return tell


def _resuming(arguments: list[str]) -> str:
    kept = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    return " ".join(["ascseg", *map(shlex.quote, kept), "--resume"])
