"""Distillation: a larger network is trained on the training part first, and softens the targets of every batch.

The teacher sees what the run itself may see: the same training images, changed by the same augmentation. It is
kept beside the run, so that a run that goes on has the same teacher.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ascseg_cli.errors import TrainingError, WeightsError
from ascseg_cli.network.loss import head_loss
from ascseg_cli.network.metadata import Preprocessing
from ascseg_cli.training import state, teacher
from ascseg_cli.training.averaging import AveragedWeights, recompute_statistics
from ascseg_cli.training.batches import Batches, Place
from ascseg_cli.training.fit import Stop, rate_at
from ascseg_cli.training.material import Material
from ascseg_cli.training.settings import RunSettings, Stage
from ascseg_cli.training.step import OUT_OF_MEMORY
from ascseg_cli.training.teacher import Teacher
from ascseg_cli.training.team import Team
from ascseg_cli.training.watch import Watch

SIDE = 256  # of the images that the teacher sees, px
_BATCH = 32
_SCHEDULE = {"rate": 1e-3, "warmup": 0.05}
_ENCODER_SHARE = 0.3  # of the rate: it has learnt before
_DECAY, _CLIP, _AVERAGING = 1e-2, 5.0, 0.998
_STAGE = -2  # gives order and augmentation streams of their own, see `batches.indices`
_STATISTICS = 16  # batches from which batch-norm values are taken
_READ_EACH = 16  # steps: on a GPU, reading each loss at once would make the CPU wait for every step


class Record(BaseModel):
    """What is known of a kept teacher: the run that it belongs to, and the facts for the weights' metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = state.FORMAT
    identity: str
    facts: dict[str, Any]


class Softener:
    """Targets between the masks and what a teacher believes: share · p + (1 − share) · mask.

    facts  about the teacher
    """

    def __init__(self, model: nn.Module, share: float, facts: dict[str, Any]) -> None:
        self.model, self.share, self.facts = model.requires_grad_(False).eval(), share, facts

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        """images (b, 3, s, s) in 0..1, not normalised; masks (b, 1, s, s) 0 or 1; returns (b, 1, s, s) in 0..1."""
        return self.share * probability(self.model, images).to(masks.dtype) + (1 - self.share) * masks


@torch.no_grad()
def probability(model: nn.Module, images: Tensor) -> Tensor:
    """A teacher's map (b, 1, s, s) of images (b, 3, s, s) in 0..1; it sees them at its own size."""
    seen = _resized(images.float(), SIDE).contiguous(memory_format=torch.channels_last)
    with _mixed_precision(images.device):
        logits = model(seen)
    return _resized(logits.float().sigmoid(), images.shape[-1])


def obtain(
    material: Material,
    settings: RunSettings,
    path: Path,
    identity: str,
    device: torch.device,
    watch: Watch,
    wants_stop: Callable[[], bool],
    team: Team,
) -> Softener:
    """The teacher that is kept at `path`; where there is none the team's leader trains it, while others wait.

    identity  of the run, which a kept teacher must have
    Raises UsageError, MissingExtraError, WeightsError, TrainingError, OutputError, and Stop where that was wanted.
    """
    stopped, kept = False, _kept(path, identity, watch) if team.leads else None
    if team.leads and kept is None:
        try:
            model, facts = train(material, settings, device, watch, wants_stop)
            state.save(path, model.state_dict(), Record(identity=identity, facts=facts))
        except Stop:
            stopped = True
            watch.say("note", "a teacher half trained isn't kept: its training will begin again")
        except OUT_OF_MEMORY as error:
            raise TrainingError(
                f"out of memory training the teacher with batches of up to {_BATCH} images of {SIDE}×{SIDE} px",
                "free memory on the device, or train without one: --set teacher=none",
            ) from error
    if team.any(stopped, device):
        raise Stop
    tensors, record = kept or state.load(path, Record)  # as a run that goes on does, to the bit
    model = Teacher()
    model.load_state_dict(tensors)
    return Softener(_on(device, model), settings.teacher_share, record.facts)


def _kept(path: Path, identity: str, watch: Watch) -> tuple[dict[str, Tensor], Record] | None:
    """What lies at `path`, if it is whole and of this run."""
    if not path.is_file():
        return None
    try:
        found = state.load(path, Record)
    except WeightsError as error:
        watch.say("warning", f"{error.message}; the teacher is trained again")
        return None
    state.check_identity(path, found[1].identity, identity)
    return found


def train(
    material: Material,
    settings: RunSettings,
    device: torch.device,
    watch: Watch,
    wants_stop: Callable[[], bool],
) -> tuple[nn.Module, dict[str, Any]]:
    """A teacher trained on the training part from its first weights, and what is to be said of it.

    Raises MissingExtraError, WeightsError, TrainingError, and Stop after the step in which it was wanted.
    """
    torch.manual_seed(settings.seed)  # of decoder and dropout; `Fit` sets it again for the run's own network
    torch.backends.cudnn.benchmark = True  # few shapes, many batches
    model = Teacher()
    sha256 = teacher.load_encoder(model.encoder, teacher.first_weights())
    count, began = len(material.images.pixels), time.monotonic()
    stage = Stage(number=_STAGE, end=1, size=SIDE, batch=min(_BATCH, count))
    unchanged = Preprocessing(rule="squeeze_antialias", size=(SIDE, SIDE))
    own = settings.model_copy(update=_SCHEDULE)
    batches = Batches(material.images, stage, own, unchanged, device)
    watch.say(
        "note", f"training the teacher: {settings.teacher}, {settings.teacher_epochs:g} passes over {count} images"
    )
    steps = math.ceil(settings.teacher_epochs * count / stage.batch)
    averaged = _fit(_on(device, model), batches, own, steps, watch, wants_stop)
    facts: dict[str, Any] = {
        "network": settings.teacher,
        "first_weights": f"ImageNet, sha256 {sha256}",
        "steps": steps,
        "batch": stage.batch,
    }
    facts |= _judged(averaged, material) | {"seconds": round(time.monotonic() - began)}
    watch.say(
        "note",
        f"teacher: validation Dice {facts['validation_dice']:.4f}, IoU {facts['validation_iou']:.4f}, "
        f"{steps:,} steps in {facts['seconds']} s",
    )
    return averaged, facts


def _fit(
    model: nn.Module, batches: Batches, own: RunSettings, steps: int, watch: Watch, wants_stop: Callable[[], bool]
) -> nn.Module:
    """The averaged weights of `model`, once trained."""
    averaged, adamw = AveragedWeights(model.train(), _AVERAGING), _optimiser(model)
    place, loss = Place(stage=_STAGE), math.nan
    for step in range(steps):
        place = batches.begin(place)
        for group in adamw.param_groups:
            group["lr"] = group["share"] * rate_at(step / steps, own)
        newest = _step(model, adamw, *batches.at(place))
        averaged.update(step)
        place = place.after(batches.stage.batch)
        if not newest.is_cuda or step % _READ_EACH == 0 or step + 1 == steps:
            loss = _finite(float(newest), step)
        watch.teach(step + 1, steps, loss)
        if wants_stop():
            raise Stop
    with _mixed_precision(batches.device):
        recompute_statistics(averaged.model, batches.typical(min(_STATISTICS, steps)))
    return averaged.model


def _optimiser(model: nn.Module) -> torch.optim.AdamW:
    """AdamW whose groups say their share of the learning rate."""
    encoder: list[nn.Parameter] = []
    other: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (encoder if name.startswith("encoder.") else other).append(parameter)
    groups = [{"params": encoder, "share": _ENCODER_SHARE}, {"params": other, "share": 1.0}]
    return torch.optim.AdamW(groups, weight_decay=_DECAY, fused=encoder[0].device.type != "mps")


def _step(model: nn.Module, adamw: torch.optim.AdamW, images: Tensor, masks: Tensor) -> Tensor:
    adamw.zero_grad(set_to_none=True)
    with _mixed_precision(images.device):
        logits = model(images.contiguous(memory_format=torch.channels_last))
    loss = head_loss(logits, masks)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
    adamw.step()
    return loss.detach()


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the teacher's loss is no longer finite at step {step + 1}",
            "look at the images and masks: ascseg check DATA; or train without a teacher: --set teacher=none",
        )
    return loss


def _judged(model: nn.Module, material: Material) -> dict[str, float]:
    """Its scores on the validation part, by the rule that the run itself is judged by."""
    verdict = material.validation.judge(_AsNetwork(model, material.rule))
    return {
        "validation_iou": round(verdict.counts.pooled_iou(), 4),
        "validation_dice": round(verdict.counts.mean_dice(), 4),
        "threshold": verdict.threshold,
    }


class _AsNetwork(nn.Module):
    """A teacher that takes and gives what ASC-Seg does: normalised images, logits of a first head."""

    def __init__(self, model: nn.Module, rule: Preprocessing) -> None:
        super().__init__()
        self.model = model.eval()
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (rule.mean, rule.std))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (probability(self.model, x * self.std.to(x) + self.mean.to(x)).logit(),)


def _on(device: torch.device, model: nn.Module) -> nn.Module:
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def _resized(x: Tensor, side: int) -> Tensor:
    """(b, c, s, s) -> (b, c, side, side): means of areas where it shrinks, bilinear where it grows."""
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, [side, side], mode="area" if x.shape[-1] > side else "bilinear")
