"""One run from a folder to a weights file: load, fit, judge on validation, write with everything said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

import ascseg_cli
from ascseg_cli.data import appearance, layouts
from ascseg_cli.data.split import Split
from ascseg_cli.kernels import backend
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training import images as image_store
from ascseg_cli.training.fit import Check, fit
from ascseg_cli.training.settings import Settings
from ascseg_cli.training.validation import Validation

log = logging.getLogger(__name__)


def train(folder: Path, settings: Settings, output: Path, device: torch.device) -> Metadata:
    """Train on a data set's training part and write `output`, at each check and at the end.

    folder   a data set in a layout that `data.layouts` knows; its test part is never read
    returns  the metadata written, with the scores on the validation part
    Raises DataError, OutputError.
    """
    dataset = layouts.open_dataset(folder)
    parts = dataset.split()
    log.info("%s: %s, split by %s", dataset.layout, parts.counts(), parts.rule)
    images = image_store.load(parts.train, settings.drawn_size)
    mean, std = image_store.mean_and_std(images.pixels)
    rule = Preprocessing(rule="squeeze_antialias", size=(settings.size, settings.size), mean=mean, std=std)
    validation = Validation.load(parts.validation, rule, device)
    base = _describe(dataset.layout, parts, settings, rule, device)
    base = base.model_copy(update={"statistics": appearance.summarise(images.features)})
    last: list[Metadata] = []

    def on_check(check: Check, model: nn.Module) -> None:
        threshold, scores = validation.judge(model)
        best = max(score.value for score in scores if score.metric == "pooled_iou")
        log.info("%s, validation IoU %.4f at threshold %.2f", check, best, threshold)
        made = {
            **base.training,
            "steps": check.step,
            "epochs": round(check.epoch, 1),
            "seconds": round(check.seconds),
        }
        last[:] = [Metadata(**{**dict(base), "training": made, "threshold": threshold, "scores": tuple(scores)})]
        checkpoint.write(output, _tensors(model, settings), last[0])

    fit(images, settings, rule, device, on_check)
    return last[0]


def _describe(
    layout: str, parts: Split, settings: Settings, rule: Preprocessing, device: torch.device
) -> Metadata:
    module = next(m for m in layouts.LAYOUTS if m.NAME == layout)
    return Metadata(
        name=f"{layout}-{settings.variant}",
        dataset=layout,
        variant=settings.variant,
        channels=VARIANTS[settings.variant],
        preprocessing=rule,
        licence=module.LICENCE,
        citation=module.CITATION,
        source="trained from scratch by ascseg_cli.training",
        split={"rule": parts.rule, **parts.counts(), "sha256": parts.sha256()},
        training={
            **settings.model_dump(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "backend": backend.resolve("auto", device.type)[0],
            "torch": torch.__version__.split("+")[0],
            "ascseg": ascseg_cli.__version__,
            "weights": "averaged over training, batch-norm values recomputed on the training part",
            "threshold": "nearest .5 within .002 of the best pooled IoU on the validation part, grid .20 to .80",
        },
    )


def _tensors(model: nn.Module, settings: Settings) -> dict[str, np.ndarray]:
    wanted = expected_shapes(VARIANTS[settings.variant])
    return {name: t.detach().cpu().numpy() for name, t in model.state_dict().items() if name in wanted}
