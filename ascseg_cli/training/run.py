"""One run in its folder: trains, judges, saves and goes on, and leaves weights with everything said."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ascseg_cli.errors import TrainingError, WeightsError
from ascseg_cli.kernels import backend
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training import card, contact_sheet, curves, distillation, events, state
from ascseg_cli.training.calibration import fit_temperature
from ascseg_cli.training.configuration import to_toml
from ascseg_cli.training.distillation import Softener
from ascseg_cli.training.files import CARD, CURVES, LOG, OVERLAYS, SETTINGS, SPLIT, TEACHER, WEIGHTS, RunFolder
from ascseg_cli.training.fit import Check, Fit, Stop
from ascseg_cli.training.log import Row, to_csv
from ascseg_cli.training.material import Material
from ascseg_cli.training.provenance import describe
from ascseg_cli.training.settings import RunSettings
from ascseg_cli.training.step import OUT_OF_MEMORY
from ascseg_cli.training.team import ALONE, Team
from ascseg_cli.training.validation import Verdict
from ascseg_cli.training.watch import Watch


@dataclass(frozen=True)
class Outcome:
    """What a run came to; `finished` is False where it was asked to stop."""

    finished: bool
    rows: list[Row]
    steps: int


class Run:
    """One run in one folder.

    wants_stop  asked after each step; the run then saves and ends
    team        the processes that run it together, of which the first judges and writes
    with_events each row of the log is written for TensorBoard too
    """

    def __init__(
        self,
        material: Material,
        settings: RunSettings,
        folder: RunFolder,
        device: torch.device,
        watch: Watch,
        wants_stop: Callable[[], bool] = lambda: False,
        team: Team = ALONE,
        *,
        with_events: bool = False,
    ) -> None:
        self.team, self.with_events = team, with_events
        self.material, self.settings, self.folder = material, settings, folder
        self.device, self.watch, self.wants_stop = device, watch, wants_stop
        compared = settings.model_dump(mode="json", exclude={"data", "device", "save_minutes"})
        self.identity = state.identity(compared, material.identity)
        self._batches: dict[int, int] = {}
        self._softener: Softener | None = None
        self._saved = time.monotonic()

    def __call__(self) -> Outcome:
        """Train from the newest checkpoint, or from the start, to the end.

        Raises UsageError where the checkpoint is of other images, TrainingError, OutputError.
        """
        if self.team.leads:
            self.folder.write(SETTINGS, to_toml(self.settings))
            self.folder.write(SPLIT, self.material.split.csv())
        self.team.wait()  # all find the same checkpoint
        with backend.using(self.settings.backend):
            while True:
                try:
                    fit = self._open()
                except Stop:  # while the teacher was trained
                    return Outcome(False, [], 0)
                if fit is None:
                    return self._already_finished()
                try:
                    return self._train(fit)
                except Stop:
                    if self.team.leads:
                        self._save(fit)
                    return Outcome(False, fit.rows, fit.place.step)
                except OUT_OF_MEMORY as error:
                    self._halve(fit, error)
                del fit
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _open(self) -> Fit | None:
        """The run as it stands in the folder; None where it is finished."""
        found = self._newest_checkpoint()
        if found is not None and found[1].finished:
            return None
        made_from, soften = self.material, self._teacher()
        start = made_from.start_tensors()
        fit = Fit(made_from.images, self.settings, made_from.rule, self.device, start, self.team, soften)
        if found is not None:
            fit.restore(*found)
            self.watch.say("note", f"going on after step {fit.place.step:,}")
        fit.batches |= self._batches
        return fit

    def _teacher(self) -> Softener | None:
        """What softens the targets; a teacher is trained first where the settings want one and none is kept."""
        if self._softener is None and self.settings.teacher != "none":
            path = self.folder.root / TEACHER
            self._softener = distillation.obtain(
                self.material,
                self.settings,
                path,
                self.identity,
                self.device,
                self.watch,
                self.wants_stop,
                self.team,
            )
        return self._softener

    def _newest_checkpoint(self) -> tuple[dict[str, torch.Tensor], state.Record] | None:
        paths = self.folder.checkpoints()
        for path in paths:
            try:
                tensors, record = state.load(path, state.Record)
            except WeightsError as error:
                then = "the run begins anew" if path == paths[-1] else "the checkpoint before it is tried"
                self.watch.say("warning", f"{error.message}; {then}")
                continue
            state.check_identity(path, record.identity, self.identity)
            return tensors, record
        return None

    def _train(self, fit: Fit) -> Outcome:
        verdicts: list[Verdict] = []

        def on_step() -> None:
            self.watch.step(fit)
            if self.team.leads and time.monotonic() - self._saved > 60 * self.settings.save_minutes:
                self._save(fit)

        def on_check(check: Check, model: nn.Module) -> Row:
            if not self.team.leads:
                return _unjudged(check)
            verdict = self.material.validation.judge(model)
            verdicts[:] = [verdict]
            row = Row(
                step=check.step, epoch=check.epoch, seconds=check.seconds, loss=check.loss, rate=check.rate,
                images_per_second=check.images_per_second, validation_iou=verdict.counts.pooled_iou(),
                validation_dice=verdict.counts.mean_dice(), threshold=verdict.threshold,
            )  # fmt: skip
            self._write_weights(model, verdict, fit)
            if self.with_events:
                self.folder.write(events.file_name(row), events.content(row))
            self.watch.check(row)
            return row

        def on_checked() -> None:
            if self.team.leads:
                self.folder.write(LOG, to_csv(fit.rows))
                self._save(fit)

        model = fit.run(on_step, on_check, on_checked, self.wants_stop)
        if self.team.leads:
            self._finish(fit, model, verdicts[0])
        return Outcome(True, fit.rows, fit.place.step)

    def _save(self, fit: Fit, *, finished: bool = False) -> None:
        record = fit.record(self.identity, finished=finished)
        state.save(self.folder.checkpoint(fit.place.step), fit.tensors(), record)
        self.folder.drop_old_checkpoints()
        self._saved = time.monotonic()

    def _write_weights(self, model: nn.Module, verdict: Verdict, fit: Fit, **more: Any) -> tuple[Metadata, str]:
        facts = describe(self.material, self.settings, self.device, fit)
        judged = {"threshold": verdict.threshold, "scores": tuple(verdict.scores)}
        metadata = Metadata.model_validate({**facts, **judged, **more})
        path = self.folder.root / WEIGHTS
        return metadata, checkpoint.write(path, _tensors(model, self.settings), metadata)

    def _finish(self, fit: Fit, model: nn.Module, verdict: Verdict) -> None:
        validation = self.material.validation
        calibration = fit_temperature(verdict.maps, validation.small)
        metadata, sha256 = self._write_weights(model, verdict, fit, calibration=calibration)
        self.folder.write(LOG, to_csv(fit.rows))
        self.folder.write(CARD, card.text(metadata, WEIGHTS, sha256))
        self.folder.write(CURVES, curves.png(fit.rows))
        self.folder.write(OVERLAYS, contact_sheet.jpeg(validation, verdict))
        self._save(fit, finished=True)

    def _already_finished(self) -> Outcome:
        found = self._newest_checkpoint()
        assert found is not None
        self.watch.say("note", f"the run in {self.folder.root} is finished")
        return Outcome(True, found[1].rows, found[1].place.step)

    def _halve(self, fit: Fit, error: BaseException) -> None:
        stage = fit.stage_now()
        half = stage.batch // 2
        if half < 2 or self.team.size > 1:  # the other processes may have had memory enough
            raise TrainingError(
                f"out of memory with batches of {len(self.team.share(stage.batch))} images of "
                f"{stage.size}×{stage.size} px on a device",
                "lower --batch or --size, or use a smaller --variant",
            ) from error
        self._batches[stage.number] = half
        self.watch.say(
            "warning",
            f"out of memory with batches of {stage.batch}: going on with {half}; this changes the training: "
            f"fewer images a step, other results than with {stage.batch}",
        )


def _unjudged(check: Check) -> Row:
    """What a process that doesn't judge notes of a check."""
    nothing: dict[str, Any] = {"validation_iou": math.nan, "validation_dice": math.nan, "threshold": math.nan}
    return Row(**vars(check), **nothing)


def _tensors(model: nn.Module, settings: RunSettings) -> dict[str, np.ndarray]:
    wanted = expected_shapes(VARIANTS[settings.variant])
    return {name: t.detach().cpu().numpy() for name, t in model.state_dict().items() if name in wanted}
