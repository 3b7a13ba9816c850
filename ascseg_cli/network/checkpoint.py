"""Reads, checks and writes one weights file: safetensors with our metadata inside. Never imports torch.

The file is read once into memory; hash, header and tensors all come from those bytes, so a file that changes
meanwhile can't pass one check and fail another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ascseg_cli.errors import UsageError, WeightsError
from ascseg_cli.network.metadata import KEY, Metadata
from ascseg_cli.network.shapes import Shape, expected_shapes
from ascseg_cli.whole_file import write_whole

MOST_BYTES = 64 * 2**20  # base has 12.4 MB
MOST_HEADER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """The content of one weights file: float32 tensors by name, metadata, and the SHA-256 of the file."""

    metadata: Metadata
    tensors: dict[str, np.ndarray]
    sha256: str


def read(path: Path) -> Checkpoint:
    """Read a weights file whole and check it against its own metadata.

    Raises WeightsError where the file is missing, damaged, oversized, or holds another network.
    """
    content = file_content(path)
    header = _header(content, path)
    metadata = _metadata(header, path)
    check_shapes(_shapes(header, len(content) - _start(content), path), metadata.channels, path)
    tensors = {
        name: np.frombuffer(
            content, "<f4", math.prod(shape), _start(content) + header[name]["data_offsets"][0]
        ).reshape(shape)
        for name, shape in expected_shapes(metadata.channels).items()
    }
    broken = next((name for name, tensor in tensors.items() if not np.isfinite(tensor).all()), None)
    if broken is not None:
        raise WeightsError(f"{path}: tensor {broken} holds values that aren't finite; the file is damaged")
    return Checkpoint(metadata, tensors, hashlib.sha256(content).hexdigest())


def read_metadata(path: Path) -> Metadata:
    """The metadata alone. Raises WeightsError."""
    return _metadata(_header(file_content(path), path), path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Metadata, *, overwrite: bool = True) -> str:
    """Write a weights file whole or not at all; returns its SHA-256.

    Raises WeightsError where the tensors don't fit the metadata, OutputError where the file can't be written.
    """
    from safetensors.numpy import save

    check_shapes({name: tensor.shape for name, tensor in tensors.items()}, metadata.channels, path)
    content = save(
        {name: np.ascontiguousarray(tensor, dtype="<f4") for name, tensor in sorted(tensors.items())},
        metadata={KEY: metadata.to_json()},
    )
    if len(content) > MOST_BYTES:
        raise WeightsError(f"the weights take {len(content):,} bytes; a weights file has at most {MOST_BYTES:,}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", "give another --output, or --overwrite")
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def check_shapes(got: Mapping[str, Shape], channels: tuple[int, int, int, int], path: Path) -> None:
    """Raise WeightsError unless exactly the tensors of a network with these channels are there."""
    wanted = expected_shapes(channels)
    missing = [name for name in wanted if name not in got]
    extra = [name for name in got if name not in wanted]
    wrong = [name for name in wanted if name in got and tuple(got[name]) != wanted[name]]
    if missing or extra:
        words = [
            f"{len(names)} {kind} ({names[0][:80]}, …)"
            for kind, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        raise WeightsError(f"{path}: tensors don't fit channels {list(channels)}: {', '.join(words)}")
    if wrong:
        name = wrong[0]
        raise WeightsError(
            f"{path}: {len(wrong)} tensors have another shape than channels {list(channels)} need: "
            f"{name} is {tuple(got[name])}, must be {wanted[name]}"
        )


def file_content(path: Path, kind: str = "a weights file") -> bytes:
    """The bytes of a file of this kind, at most MOST_BYTES. Raises WeightsError."""
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes; {kind} has at most {MOST_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from error


def _start(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _header(content: bytes, path: Path) -> dict[str, Any]:
    """The safetensors header, checked against the file's length before anything is allocated from it."""
    if len(content) < 8 or not 2 <= _start(content) - 8 <= min(MOST_HEADER_BYTES, len(content) - 8):
        raise WeightsError(f"{path} is no safetensors file, or is truncated", _import_hint(content, path))
    try:
        header = json.loads(content[8 : _start(content)])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its safetensors header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its safetensors header is damaged (not an object)")
    return header


def _import_hint(content: bytes, path: Path) -> str:
    if path.suffix.lower() == ".pt2":
        return "predict and evaluate run exports in ONNX (*.onnx); torch.export.load runs a .pt2"
    if content[:2] == b"PK" or content[:1] == b"\x80":
        return "this looks like a PyTorch checkpoint; run: ascseg weights import FILE --output weights.safetensors"
    if content[:1] == b"\x08":  # the first field of an ONNX file
        return "if it is an exported file: predict and evaluate run it under the name *.onnx"
    return ""


def _metadata(header: dict[str, Any], path: Path) -> Metadata:
    texts = header.get("__metadata__")
    text = texts.get(KEY) if isinstance(texts, dict) else None
    if not isinstance(text, str):
        raise WeightsError(
            f"{path} is a safetensors file without ascseg's metadata",
            f"run: ascseg weights import {path} --output FILE",
        )
    try:
        return Metadata.from_json(text)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error


def _shapes(header: dict[str, Any], size: int, path: Path) -> dict[str, Shape]:
    """Every tensor's shape, once its dtype and place in the file are known to be right."""
    shapes: dict[str, Shape] = {}
    end = 0
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    try:
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"][0]):
            shape = tuple(entry["shape"])
            first, last = entry["data_offsets"]
            if len(shape) > 8 or any(type(s) is not int or not 0 <= s < 2**40 for s in (*shape, first, last)):
                raise ValueError(f"{name[:80]} has a shape or place that is no count")
            if entry["dtype"] != "F32":
                raise ValueError(f"{name[:80]} is {str(entry['dtype'])[:20]}; weights are F32")
            if first != end or last - first != 4 * math.prod(shape):
                raise ValueError(f"{name[:80]} lies at {first}..{last}, which its shape {shape} contradicts")
            shapes[name], end = shape, last
        if end != size:
            raise ValueError(f"{size:,} bytes of tensors, {end:,} expected; truncated or padded")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its safetensors header is damaged ({str(error)[:200]})") from error
    return shapes
