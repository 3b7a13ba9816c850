"""A user's checkpoint becomes a weights file of ours, with the preprocessing that it was trained for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli.errors import OutputError, ShapeError, WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.network.variants import Channels, check_channels, variant_of
from ascseg_cli.weights.manifest import load_manifest
from ascseg_cli.weights.naming import first_few, printable
from ascseg_cli.weights.pickled import NotPlainError
from ascseg_cli.weights.source import Source, SourceTensor, open_source

ANCHOR = "encoder.eb1.ipc.0.weight"
# Where several networks lie in one file, the first of these is taken and the others are named.
WRAPPERS = ("", "weights", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params")
PARALLEL = ("module", "_orig_mod")  # added by DataParallel and torch.compile
COUNTERS = ("num_batches_tracked",)  # of BN, of no use in evaluation
PROFILER = ("total_ops", "total_params")  # thop leaves these in the models that it has measured
FLOATS = ("float32", "float64", "float16", "bfloat16")
# NETWORK.md, "Facts about the original": what every checkpoint of the authors' code was trained with
ORIGINAL = Preprocessing(rule="stretch_bilinear", size=(256, 256))


@dataclass(frozen=True)
class Imported:
    """What was written, and what the user should hear about it, one line each."""

    path: Path
    sha256: str
    metadata: Metadata
    notes: tuple[str, ...]


def import_weights(source: Path, output: Path, *, overwrite: bool = False, dataset: str | None = None) -> Imported:
    """Write the network within `source` as a weights file with the original's preprocessing.

    source   a torch checkpoint of either container, plain or wrapped, or a safetensors file; see open_source
    output   written whole or not at all; an existing file is refused unless `overwrite`
    dataset  the data set it was trained on, where the user knows it; its licence and citation are recorded
    Raises WeightsError where the source holds no such network, OutputError where `output` can't be written.
    """
    _check_output(source, output, overwrite)
    terms = load_manifest().terms_of(dataset) if dataset else {}
    opened = open_source(source)
    named, notes = _weights_in(opened, source)
    channels = _channels(named, source)
    _check_names(named, channels, source)
    tensors = {name: _float32(name, named[name], source) for name in expected_shapes(channels)}
    dtypes = {named[name].dtype for name in tensors} - {"float32"}
    notes += [f"converted to float32 from {', '.join(sorted(dtypes))}"] if dtypes else []
    metadata = Metadata(
        name=output.stem.encode("utf-8", "replace").decode(),
        dataset=dataset,
        variant=variant_of(channels),
        channels=channels,
        preprocessing=ORIGINAL,
        source=f"imported from {printable(source.name)}, {opened.form}, sha256 {opened.sha256}",
        licence=terms.get("licence", ""),
        citation=terms.get("citation", ""),
    )
    digest = checkpoint.write(output, tensors, metadata, overwrite=overwrite)
    return Imported(output, digest, metadata, tuple(notes))


def _check_output(source: Path, output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise OutputError(f"{output} is a folder; --output names a file", f"try {output / 'weights.safetensors'}")
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError(f"{output} is the source itself", "give another --output")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists", "give another --output, or --overwrite")


def _weights_in(source: Source, path: Path) -> tuple[dict[str, SourceTensor], list[str]]:
    """The tensors of one network under their plain names, and notes on what was left out."""
    prefix, notes = _choose_prefix(source, path)
    plain = {name.removeprefix(prefix): t for name, t in source.tensors.items() if name.startswith(prefix)}
    found = {name: t for name, t in plain.items() if name.rpartition(".")[2] not in (*COUNTERS, *PROFILER)}
    if any(name.rpartition(".")[2] in PROFILER for name in plain):
        notes.append(f"left out {' and '.join(PROFILER)}, which a profiler added")
    return found, notes


def _choose_prefix(source: Source, path: Path) -> tuple[str, list[str]]:
    """What stands before the network's own names; of several networks, the one in the best-known wrapper."""
    prefixes = [name.removesuffix(ANCHOR) for name in source.tensors if f".{name}".endswith(f".{ANCHOR}")]
    if not prefixes:
        held = f"{len(source.tensors):,} tensors" + (f": {first_few(source.tensors)}" if source.tensors else "")
        raise WeightsError(
            f"{path} holds no ASC-Seg network: no {ANCHOR} in it ({held})",
            "give a checkpoint of the original code, or its state dict",
        )
    prefix, *others = sorted(prefixes, key=_rank)
    if others and _rank(prefix) == _rank(others[0]):
        raise WeightsError(
            f"{path} holds several networks: {first_few(prefixes)}",
            'save the one you want by itself: torch.save(state_dict, "best_state.pth")',
        )
    return prefix, [f"took {prefix or 'the plain names'}*, left out {first_few(others)}*"] if others else []


def _rank(prefix: str) -> int:
    words = tuple(word for word in prefix.split(".") if word not in ("", *PARALLEL))
    wrapper = ".".join(words)
    return WRAPPERS.index(wrapper) if wrapper in WRAPPERS else len(WRAPPERS)


def _channels(named: dict[str, SourceTensor], path: Path) -> Channels:
    """C1..C4, read off the first convolution of each stage."""
    names = [ANCHOR.replace("eb1", f"eb{stage}") for stage in (1, 2, 3, 4)]
    missing = [name for name in names if name not in named or len(named[name].shape) != 4]
    if missing:
        raise WeightsError(
            f"{path} is no whole ASC-Seg network: {first_few(missing)} missing or not a convolution"
        )
    try:
        return check_channels([named[name].shape[0] for name in names])
    except ShapeError as error:
        raise WeightsError(f"{path} can't be imported: {error.message}") from error


def _check_names(named: dict[str, SourceTensor], channels: Channels, path: Path) -> None:
    """Refuse what isn't exactly this network's tensors, before a value is read."""
    wanted = expected_shapes(channels)
    missing = [name for name in wanted if name not in named]
    extra = [name for name in named if name not in wanted]
    wrong = [name for name in wanted if name in named and named[name].shape != wanted[name]]
    faults = [f"{len(missing)} missing ({first_few(missing)})"] if missing else []
    faults += [f"{len(extra)} not of this network ({first_few(extra)})"] if extra else []
    faults += [f"{len(wrong)} of another shape ({_shapes(wrong[0], named, wanted)})"] if wrong else []
    if faults:
        raise WeightsError(f"{path} doesn't fit a network of channels {list(channels)}: {'; '.join(faults)}")
    size = 4 * sum(map(math.prod, wanted.values()))
    if size > checkpoint.MOST_BYTES:
        raise WeightsError(f"{path} would make a weights file of {size:,} bytes, over {checkpoint.MOST_BYTES:,}")


def _shapes(name: str, named: dict[str, SourceTensor], wanted: dict[str, tuple[int, ...]]) -> str:
    return f"{name} is {list(named[name].shape)}, must be {list(wanted[name])}"


def _float32(name: str, tensor: SourceTensor, path: Path) -> np.ndarray:
    """One tensor's values, finite, and not negative where they are variances."""
    if tensor.dtype not in FLOATS:
        raise WeightsError(f"{path}: tensor {name} is {printable(tensor.dtype)}; weights are floating point")
    try:
        with np.errstate(over="ignore"):
            values = tensor.load().astype(np.float32)
    except NotPlainError as error:
        raise WeightsError(f"{path} can't be imported: {error}") from error
    if not np.isfinite(values).all():
        raise WeightsError(f"{path}: tensor {name} holds NaN or infinity; its training diverged, or it is damaged")
    if name.endswith("running_var") and values.size and values.min() < 0:
        raise WeightsError(f"{path}: tensor {name} is a variance and holds negative values; the file is damaged")
    return values
