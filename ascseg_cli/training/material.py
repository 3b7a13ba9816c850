"""What a run is made from: the data set divided, copies left out, images in memory, weights to start from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ascseg_cli.data import appearance, fingerprint, layouts
from ascseg_cli.data.fingerprint import Fingerprint, Index
from ascseg_cli.data.layouts import Dataset
from ascseg_cli.data.leaks import fingerprints_of, without_leaks
from ascseg_cli.data.split import PARTS, Split
from ascseg_cli.errors import DataError, UsageError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.metadata import Preprocessing
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training import images as image_store
from ascseg_cli.training.configuration import Given, check_given, contradictions, defaults, read_file, resolve
from ascseg_cli.training.files import SETTINGS, RunFolder
from ascseg_cli.training.images import Images
from ascseg_cli.training.settings import RunSettings
from ascseg_cli.training.state import identity
from ascseg_cli.training.validation import Validation
from ascseg_cli.training.widen import widened
from ascseg_cli.weights.manifest import load_manifest
from ascseg_cli.weights.store import locate

Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Material:
    """Everything that a run with any seed needs.

    split            as trained on: training images that are copies of held-out ones are left out
    training_images  fingerprints of all images that the weights will have seen, as text
    identity         a hash of the split, the images, their masks and the weights to start from
    """

    layout: str
    split: Split
    images: Images
    validation: Validation
    rule: Preprocessing
    start: Checkpoint | None
    training_images: str
    statistics: appearance.Statistics
    identity: str

    def start_tensors(self) -> Mapping[str, Tensor] | None:
        """The network's tensors to start from."""
        if self.start is None:
            return None
        return {name: torch.from_numpy(tensor.copy()) for name, tensor in self.start.tensors.items()}


def settle(given: Given, folder: RunFolder, *, resume: bool) -> RunSettings:
    """The settings of a run: its own where it goes on, else the user's, over what data and start suggest.

    Raises UsageError, DataError, WeightsError; nothing is written.
    """
    check_given(given)
    if resume and folder.has(SETTINGS):
        saved = resolve(read_file(folder.root / SETTINGS), {})
        differing = contradictions(given, saved)
        if differing:
            raise UsageError(
                f"the run in {folder.root} has other settings: {'; '.join(differing)}",
                "leave them out to go on with it, or give another --output",
            )
        return saved.model_copy(update={key: given[key] for key in ("data", "device") if key in given})
    if "data" not in given:
        raise UsageError("no data set is given", "ascseg train --data FOLDER --output RUN_FOLDER")
    start = open_start(given.get("from"), given.get("variant"))
    dataset = layouts.open_dataset(Path(given["data"]))
    split = _split(dataset, given.get("split_file"), given.get("group_by"))
    metadata = start.metadata if start else None
    return resolve(given, defaults(len(split.train), dataset.layout, metadata))


def prepare(settings: RunSettings, device: torch.device, say: Say) -> Material:
    """Read everything. Raises DataError, UsageError, WeightsError."""
    start = open_start(settings.start, settings.variant)
    dataset = layouts.open_dataset(Path(settings.data))
    _say_unpaired(dataset, say)
    split, known = _without_copies(_split(dataset, settings.split_file, settings.group_by), say)
    most = max(stage.batch for stage in settings.stages())
    if len(split.train) < most:
        raise DataError(
            f"{len(split.train)} training images, a batch holds {most}",
            "lower the batch size (two or more), or add images",
        )
    counts = split.counts()
    say("note", f"{dataset.layout}: {', '.join(f'{counts[part]} {part}' for part in PARTS)}, by {split.rule}")
    images = image_store.load(split.train, settings.drawn_size)
    if not images.masks.any():
        raise DataError(
            f"the training part holds {len(split.train)} images, and none of them shows anything to find",
            "`ascseg check` says what the masks hold",
        )
    mean, std = (start.metadata.preprocessing.mean, start.metadata.preprocessing.std) if start else (None, None)
    if mean is None or std is None:
        mean, std = image_store.mean_and_std(images.pixels)
    rule = Preprocessing(rule="squeeze_antialias", size=(settings.size, settings.size), mean=mean, std=std)
    trained = [known[pair.image] for pair in split.train]
    earlier = fingerprint.decode(start.metadata.training_images or fingerprint.encode([])) if start else []
    judged = [known[pair.image] for pair in split.validation]
    _say_seen(judged, earlier, settings.start, say)
    validation = Validation.load(split.validation, rule, device)
    content = [one.content.hex() for one in (*trained, *judged)]
    masks = list(_mask_hashes([*images.masks, *validation.truths]))
    return Material(
        layout=dataset.layout,
        split=split,
        images=images,
        validation=validation,
        rule=rule,
        start=start,
        training_images=fingerprint.encode({*trained, *earlier}),
        statistics=appearance.summarise(images.features),
        identity=identity(split.sha256(), content, masks, start.sha256 if start else None),
    )


def open_start(name: str | None, variant: str | None) -> Checkpoint | None:
    """The weights that `from` names, a file or a data set's; those of a narrower variant are widened.

    Raises WeightsError, UsageError.
    """
    if name is None:
        return None
    is_file = name.endswith(".safetensors") or "/" in name or Path(name).is_file()
    content = checkpoint.read(Path(name) if is_file else _located(name, variant))
    own = content.metadata.variant
    if own not in VARIANTS:
        raise UsageError(f"{name} has channels of no variant; training knows {', '.join(VARIANTS)}")
    if variant in (None, own):
        return content
    if variant not in VARIANTS or VARIANTS[variant] < VARIANTS[own]:
        raise UsageError(
            f"{name} is a {own} network, --variant is {variant}; a network can be widened, not narrowed",
            "leave out --variant",
        )
    return replace(content, tensors=widened(content.tensors, VARIANTS[own], VARIANTS[variant]))


def _located(dataset: str, variant: str | None) -> Path:
    """A set's weights of that variant; where there are none, the set's default."""
    variants = {entry.variant for entry in load_manifest().weights if entry.dataset == dataset}
    return locate(dataset, variant if variant in variants else None)


def _say_unpaired(dataset: Dataset, say: Say) -> None:
    if dataset.unpaired:
        first = dataset.unpaired[0]
        count = len(dataset.unpaired)
        many = f" and {count - 1:,} more" if count > 1 else ""
        say("warning", f"left out: {first.path.name}{many} ({first.reason}); `ascseg check` names all")


def _mask_hashes(masks: Sequence[np.ndarray]) -> Iterator[str]:
    for mask in masks:
        yield hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def _say_seen(
    validation: Sequence[Fingerprint], earlier: Sequence[Fingerprint], start: str | None, say: Say
) -> None:
    seen = {match.query for match in Index(earlier).matches(validation)} if earlier else set()
    if seen:
        say(
            "warning",
            f"{len(seen)} of {len(validation)} validation images are copies of images that {start} was trained "
            "on: scores on them say too much",
        )


def _split(dataset: Dataset, split_file: str | None, group_by: str | None) -> Split:
    split = dataset.split(split_file=Path(split_file) if split_file else None, group_by=group_by)
    for part in PARTS[:2]:
        if not getattr(split, part):
            raise DataError(
                f"{len(dataset.pairs)} images, and none of them falls into the {part} part ({split.rule})",
                "add images, or say each one's part with --split-file CSV (image,part)",
            )
    return split


def _without_copies(split: Split, say: Say) -> tuple[Split, dict[Path, Fingerprint]]:
    """The split without training images that are copies of held-out ones, and the fingerprints of its images.

    Of the test part the images are hashed, for nothing but this; its masks are never opened.
    """
    everything = [pair.image for part in PARTS for pair in getattr(split, part)]
    known, failed = fingerprints_of(everything, torch.get_num_threads())
    for path, error in failed.items():
        if path in {pair.image for pair in split.test}:
            say("warning", f"{path.name} of the test part can't be read, so copies of it aren't noticed")
        else:
            raise DataError(f"{path}: {error.message}", error.hint) from error
    kept, left_out = without_leaks(split, known)
    for one in left_out:
        say("warning", f"left out of training: {one}")
    if not kept.train:
        raise DataError("every training image is a copy of a validation or test image", "check the split")
    return kept, known
