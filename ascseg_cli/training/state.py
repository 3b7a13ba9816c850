"""Checkpoints: everything that a run needs to go on as if it had never stopped, as safetensors with JSON inside.

Model, averaged weights and AdamW's state are tensors; where the run stands, its clock and its log are JSON. The
order of the images and their augmentation follow from the place in the run (`batches.py`), so no random
generator's state is kept. Nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ascseg_cli.errors import UsageError, WeightsError
from ascseg_cli.training.batches import Place
from ascseg_cli.training.log import Row
from ascseg_cli.whole_file import write_whole

FORMAT = 1
_KEY = "ascseg_training"
_Record = TypeVar("_Record", bound=BaseModel)


class Record(BaseModel):
    """The part of a checkpoint that isn't tensors.

    identity    what must agree for a run to go on: a hash of settings, images and start
    batches     images in one step of each stage, smaller than the settings' after running out of memory
    seconds     that the run has taken, without the pauses
    loss_sum    of the steps since the last check, and how many they were
    checked     validations done
    finished    the last step is done and the weights are written
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    identity: str
    place: Place
    batches: dict[int, int]
    seconds: float
    loss_sum: float
    loss_steps: int
    checked: int
    rows: list[Row]
    finished: bool = False


def save(path: Path, tensors: Mapping[str, Tensor], record: BaseModel) -> None:
    """Write tensors and a record of them whole or not at all. Raises OutputError."""
    from safetensors.torch import save as to_bytes

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = record.model_dump_json()
    content = to_bytes(on_cpu, metadata={_KEY: text, "sha256": _hash(on_cpu, text)})
    write_whole(path, content)


def load(path: Path, kind: type[_Record]) -> tuple[dict[str, Tensor], _Record]:
    """What `save` wrote of this kind of record. Raises WeightsError where the file is damaged or isn't that."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read: {error}") from error
    text = metadata.get(_KEY, "")
    if metadata.get("sha256") != _hash(tensors, text):
        raise WeightsError(f"{path} is damaged: its content isn't what its hash says")
    try:
        return tensors, kind.model_validate_json(text)
    except ValidationError as error:
        raise WeightsError(f"{path} was not written by this release") from error


def check_identity(path: Path, found: str, wanted: str) -> None:
    """Raise UsageError where a kept file's identity isn't that of the run that would go on from it."""
    if found != wanted:
        raise UsageError(
            f"{path} belongs to a run on other images or masks, another split or other first weights",
            "bring the data back as it was, or give another --output",
        )


def identity(*parts: Any) -> str:
    """A hash of everything that must agree between the two halves of one run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _hash(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
