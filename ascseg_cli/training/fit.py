"""The training loop: steps by a schedule, checks on validation, a state to be saved between any two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ascseg_cli.errors import TrainingError
from ascseg_cli.kernels.shared_norm import share_norms
from ascseg_cli.network.asc_seg import ASCSeg
from ascseg_cli.network.metadata import Preprocessing
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training.averaging import AveragedWeights, settle_statistics
from ascseg_cli.training.batches import Batches, Place, Soften, indices
from ascseg_cli.training.images import Images
from ascseg_cli.training.log import Row
from ascseg_cli.training.settings import Settings, Stage
from ascseg_cli.training.state import Record
from ascseg_cli.training.step import Optimiser, TrainingStep
from ascseg_cli.training.team import ALONE, Team

_LOWEST_RATE = 0.01  # of the largest, at the end of the cosine
_STATISTICS = 4, 16  # batches of each kind from which batch-norm values are taken: fewest, most
_STEPS_EACH = 4  # steps between two checks for each such batch, whose three passes take as long as one step
_UNREAD_STEPS = 32  # on a GPU: reading each loss at once would make the CPU wait for every step


@dataclass(frozen=True)
class Check:
    """Where a run stands when its averaged weights are to be judged; the fields are those of `log.Row`."""

    step: int
    epoch: float
    seconds: float
    loss: float
    rate: float
    images_per_second: float


class Stop(Exception):
    """The run was asked to end; everything up to here is known to be finite."""


class Fit:
    """One run in memory.

    start   tensors by name to begin with, else random ones
    team    the processes that share its batches
    soften  see `Batches`
    """

    def __init__(
        self,
        images: Images,
        settings: Settings,
        rule: Preprocessing,
        device: torch.device,
        start: Mapping[str, Tensor] | None = None,
        team: Team = ALONE,
        soften: Soften | None = None,
    ) -> None:
        self.team, self.soften = team, soften
        torch.manual_seed(settings.seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # few shapes, many batches
        self.images, self.settings, self.rule, self.device = images, settings, rule, device
        self.model = ASCSeg(VARIANTS[settings.variant])
        if start is not None:
            self.model.load_state_dict(dict(start), strict=False)
        if team.size > 1:
            share_norms(self.model)
        self.model.to(device)
        self.averaged = AveragedWeights(self.model, settings.averaging)
        self.optimiser = Optimiser(self.model, settings)
        self.place = Place(stage=settings.stages()[0].number)
        self.rows: list[Row] = []
        self.batches: dict[int, int] = {}  # by stage, where memory was too small for the settings' own
        self.checked = self.loss_steps = 0
        self.loss_sum = 0.0
        self._began = time.monotonic()
        self._last_check = (self.seconds, 0)
        self._unread: list[tuple[Place, Tensor]] = []
        self.rate = 0.0

    @property
    def seconds(self) -> float:
        """That the run has taken, the sessions before this one included."""
        return time.monotonic() - self._began

    @property
    def epoch(self) -> float:
        """Passes over the images."""
        return self.place.drawn / len(self.images.pixels)

    @property
    def loss(self) -> float:
        """Mean loss of the steps since the last validation, or up to it where none has been read since."""
        if self.loss_steps:
            return self.loss_sum / self.loss_steps
        return self.rows[-1].loss if self.rows else math.nan

    def progress(self) -> float:
        """From 0 to 1; 1 or more: the run is over."""
        if self.settings.steps is not None:
            return self.place.step / self.settings.steps
        if self.settings.epochs is not None:
            return self.epoch / self.settings.epochs
        return self.seconds / (60 * (self.settings.minutes or 1))

    def stage_now(self) -> Stage:
        """The stage of the next step, with the batch that memory allows."""
        return self._fitting(next(s for s in self.settings.stages() if s.number == self.place.stage))

    def tensors(self) -> dict[str, Tensor]:
        """Everything of the run that is tensors, by name."""
        parts = {"model": self.model.state_dict(), "averaged": self.averaged.model.state_dict()}
        parts["adamw"] = self.optimiser.state()
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def record(self, identity: str, *, finished: bool = False) -> Record:
        """Everything else. Raises TrainingError where a loss was no longer finite."""
        self._read_losses()
        return Record(
            identity=identity,
            place=self.place,
            batches=self.batches,
            seconds=self.seconds,
            loss_sum=self.loss_sum,
            loss_steps=self.loss_steps,
            checked=self.checked,
            rows=self.rows,
            finished=finished,
        )

    def restore(self, tensors: Mapping[str, Tensor], record: Record) -> None:
        """Stand where the run stood when `tensors` and `record` were taken."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "adamw": {}}
        for name, tensor in tensors.items():
            part, _, inner = name.partition(".")
            parts[part][inner] = tensor
        self.model.load_state_dict(parts["model"])
        self.averaged.model.load_state_dict(parts["averaged"])
        self.optimiser.load(parts["adamw"])
        self.place, self.rows, self.batches = record.place, list(record.rows), dict(record.batches)
        self.checked, self.loss_sum, self.loss_steps = record.checked, record.loss_sum, record.loss_steps
        self._began = time.monotonic() - record.seconds
        self._last_check = (self.seconds, self.place.drawn)

    def run(
        self,
        on_step: Callable[[], None],
        on_check: Callable[[Check, nn.Module], Row],
        on_checked: Callable[[], None],
        wants_stop: Callable[[], bool],
    ) -> nn.Module:
        """Train to the end; returns the averaged model, in evaluation mode.

        on_step     called after each step
        on_check    called `settings.checks` times, the last time at the end, with the averaged model in evaluation
                    mode, its batch-norm values recomputed
        on_checked  called when its row is part of the state, but for the last
        wants_stop  asked after each step
        Raises TrainingError where the loss is no longer finite, Stop.
        """
        stages = self.settings.stages()
        self._full = self._batches(stages[-1])
        for stage in stages:
            if stage.number < self.place.stage:
                continue
            if stage.number > self.place.stage:
                self._read_losses()  # a message would name the batch by this stage's size
                self.place = replace(self.place, stage=stage.number, epoch=0, offset=0)
            batches = self._full if stage == stages[-1] else self._batches(stage)
            train_step = TrainingStep(self.model, self.optimiser, batches.stage, self.team)
            while self.progress() < stage.end:
                self._step(batches, train_step)
                if self.settings.checks * self.progress() >= self.checked + 1 and self.progress() < 1:
                    self._check(on_check)
                    on_checked()
                on_step()
                if self.team.any(wants_stop(), self.device):
                    self._read_losses()
                    raise Stop
        self._check(on_check)
        return self.averaged.model

    def _fitting(self, stage: Stage) -> Stage:
        return stage.model_copy(update={"batch": self.batches.get(stage.number, stage.batch)})

    def _batches(self, stage: Stage) -> Batches:
        place = (self.rule, self.device, self.team, self.soften)
        return Batches(self.images, self._fitting(stage), self.settings, *place)

    def _step(self, batches: Batches, train_step: TrainingStep) -> None:
        place = batches.begin(self.place)
        images, targets = batches.at(place)
        self.rate = rate_at(self.progress(), self.settings)
        train_step(images, targets, self.rate)
        self.averaged.update(place.step)
        self.place = place.after(batches.stage.batch)
        self._unread.append((place, torch.stack([train_step.loss, train_step.norm])))
        if len(self._unread) >= (_UNREAD_STEPS if self.device.type == "cuda" else 1):
            self._read_losses()

    def _read_losses(self) -> None:
        """Fetch the losses of the last steps. Raises TrainingError at the first that isn't finite."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        for (place, _), (loss, norm) in zip(unread, torch.stack([both for _, both in unread]).tolist()):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._not_finite(place, "loss" if not math.isfinite(loss) else "gradient")
            self.loss_sum += loss
            self.loss_steps += 1

    def _not_finite(self, place: Place, what: str) -> TrainingError:
        chosen = indices(place, len(self.images.pixels), self.stage_now().batch, self.settings.seed)
        names = ", ".join(self.images.names[i] for i in chosen.tolist())
        epoch = place.drawn / len(self.images.pixels)
        return TrainingError(
            f"the {what} of step {place.step + 1} (epoch {epoch:.1f}) is no longer finite; its batch: {names}",
            "look at these images and masks; if they are sound, lower --rate; the same run would end here again",
        )

    def _check(self, on_check: Callable[[Check, nn.Module], Row]) -> None:
        self._read_losses()
        began, drawn = self._last_check
        speed = (self.place.drawn - drawn) / max(self.seconds - began, 1e-9)
        loss = self.loss
        self.checked = max(self.checked + 1, int(self.settings.checks * self.progress()))
        self.loss_sum, self.loss_steps = 0.0, 0
        fewest, most = _STATISTICS
        count = min(max(self.place.step // (_STEPS_EACH * self.checked), fewest), most)
        settle_statistics(self.averaged.model, self._full, count)
        check = Check(self.place.step, self.epoch, self.seconds, loss, self.rate, speed)
        self.rows.append(on_check(check, self.averaged.model))
        self._last_check = (self.seconds, self.place.drawn)


def rate_at(progress: float, settings: Settings) -> float:
    """Learning rate: a straight rise, then half a cosine down to a hundredth."""
    if progress < settings.warmup:
        return settings.rate * max(progress / settings.warmup, _LOWEST_RATE)
    wave = 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))
    return settings.rate * (_LOWEST_RATE + (1 - _LOWEST_RATE) * wave)
