"""What weights say of how they came about: data, split, settings, and the circumstances of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import ascseg_cli
from ascseg_cli.data import layouts
from ascseg_cli.kernels import backend
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training.distillation import Softener
from ascseg_cli.training.fit import Fit
from ascseg_cli.training.material import Material
from ascseg_cli.training.settings import RunSettings

_PRIVATE = {"data", "split_file", "group_by", "device", "backend", "save_minutes"}  # say nothing of the weights
_THRESHOLD = "nearest .5 within .002 of the best pooled IoU on the validation part, grid .20 to .80"


def describe(material: Material, settings: RunSettings, device: torch.device, fit: Fit) -> dict[str, Any]:
    """The metadata of a run's weights, but for what judging them adds."""
    module = next(m for m in layouts.LAYOUTS if m.NAME == material.layout)
    licence, source = module.LICENCE, "trained from scratch by ascseg train"
    if material.start is not None:
        base = material.start.metadata
        source = f"trained by ascseg train, starting from {base.name} (sha256 {material.start.sha256})"
        if base.licence != licence:
            started_from = f"started from {base.name}: {base.licence or 'terms unknown'}"
            licence = "; ".join(filter(None, (licence, started_from)))
    return dict(
        name=f"{material.layout}-{settings.variant}",
        dataset=material.layout,
        variant=settings.variant,
        channels=VARIANTS[settings.variant],
        preprocessing=material.rule,
        licence=licence,
        citation=module.CITATION,
        source=source,
        split={"rule": material.split.rule, **material.split.counts(), "sha256": material.split.sha256()},
        statistics=material.statistics,
        training_images=material.training_images,
        training={
            **settings.model_dump(by_alias=True, exclude=_PRIVATE),
            **_circumstances(device, settings.backend, fit),
        },
    )


def _circumstances(device: torch.device, wanted: str, fit: Fit) -> Mapping[str, Any]:
    facts = {
        "steps": fit.place.step,
        "epochs": round(fit.epoch, 1),
        "seconds": round(fit.seconds),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": backend.resolve(wanted, device.type)[0],
        "torch": torch.__version__.split("+")[0],
        "ascseg": ascseg_cli.__version__,
        "weights": "averaged over training, batch-norm values recomputed on training images",
        "threshold": _THRESHOLD,
    }
    if fit.team.size > 1:
        facts["devices"] = fit.team.size
    if isinstance(fit.soften, Softener):
        facts["teacher"] = fit.soften.facts
    return facts | ({"batch_after_out_of_memory": dict(fit.batches)} if fit.batches else {})
