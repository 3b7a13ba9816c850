"""Opens whatever a user calls weights: one flat list of named tensors, read only when they are wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ascseg_cli.errors import WeightsError
from ascseg_cli.network import metadata
from ascseg_cli.weights.naming import first_few, printable
from ascseg_cli.weights.pickled import NotPlainError, Pickled, TensorRef
from ascseg_cli.weights.torch_file import DTYPES, TorchFile, read_torch_file, widen_bfloat16

MOST_BYTES = 512 * 2**20  # base with its optimiser's state has 37 MB
MOST_DEPTH = 8
LONGEST_NAME = 200
SAVE_STATE_DICT = 'where it was made, run: torch.save(model.state_dict(), "best_state.pth"), then import that file'
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2"}
FLOATS = {"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16"} | {
    "BFloat16Storage": "bfloat16",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of a source: shape and type as its file states them, values on demand (bfloat16 as float32)."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Named tensors of one file; nested dicts are joined with dots."""

    form: str
    sha256: str
    tensors: dict[str, SourceTensor]


def open_source(path: Path) -> Source:
    """Read a torch checkpoint (either container) or a safetensors file, executing nothing.

    Raises WeightsError where the file is missing, oversized, damaged, of no known form, or names in its pickle
    what only execution could build.
    """
    data = _content(path)
    digest = hashlib.sha256(data).hexdigest()
    if _is_safetensors(data) or (data[:2] != b"PK" and data[:1] != b"\x80"):
        return Source("safetensors", digest, _safetensors(data, path))
    try:
        file = read_torch_file(data)
        _refuse_objects(file.content, path)
        return Source("PyTorch checkpoint", digest, _flatten(file, path))
    except NotPlainError as error:
        raise WeightsError(f"{path} can't be imported: {error}", "if it is a checkpoint, save it anew") from error


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes; a checkpoint has at most {MOST_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from error


def _is_safetensors(data: bytes) -> bool:
    """Its first eight bytes are the length of a JSON text that follows; they may begin like a pickle's."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _safetensors(data: bytes, path: Path) -> dict[str, SourceTensor]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(data)
    except (SafetensorError, OverflowError, ValueError) as error:
        raise WeightsError(
            f"{path} is neither a torch checkpoint nor a safetensors file, or is damaged ({printable(error)})"
        ) from error
    texts = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    if metadata.KEY in texts:
        raise WeightsError(f"{path} is already a weights file of ascseg", f"use it as it is: --weights {path}")
    return {name: _safetensor(entry) for name, entry in entries}


def _safetensor(entry: dict[str, Any]) -> SourceTensor:
    kind, shape = entry["dtype"], tuple(entry["shape"])

    def load() -> np.ndarray:
        values = np.frombuffer(entry["data"], np.dtype("<" + SAFETENSORS[kind])).reshape(shape)
        return widen_bfloat16(values) if kind == "BF16" else values

    return SourceTensor(shape, FLOATS.get(kind, kind), load)


def _refuse_objects(content: Pickled, path: Path) -> None:
    """Refuse a pickle that needs execution: whole models, and names that plain data never holds."""
    if any(name.startswith("torch.nn.") for name in content.unknown):
        raise WeightsError(
            f"{path} holds a whole pickled model, which only running its code could build; nothing was run",
            SAVE_STATE_DICT,
        )
    if content.unknown:
        raise WeightsError(
            f"{path} names {first_few(content.unknown)} in its pickle, which only running code could build;"
            " nothing was run",
            SAVE_STATE_DICT,
        )


def _flatten(file: TorchFile, path: Path) -> dict[str, SourceTensor]:
    """Every tensor within nested dicts, by its keys joined with dots; each dict is visited once."""
    tensors: dict[str, SourceTensor] = {}
    seen: set[int] = set()

    def visit(value: Any, name: str, depth: int) -> None:
        if isinstance(value, TensorRef):
            if name in tensors:
                raise WeightsError(f"{path} holds the tensor {printable(name)} twice")
            tensors[name] = _torch_tensor(file, value)
        elif isinstance(value, dict) and id(value) not in seen and depth < MOST_DEPTH:
            seen.add(id(value))
            for key, item in value.items():
                if len(key) > LONGEST_NAME:
                    raise NotPlainError(f"it names something {printable(key)}")
                visit(item, f"{name}.{key}" if name else key, depth + 1)

    visit(file.content.value, "", 0)
    return tensors


def _torch_tensor(file: TorchFile, ref: TensorRef) -> SourceTensor:
    kind = ref.storage.kind
    return SourceTensor(ref.shape, FLOATS.get(kind, DTYPES.get(kind, kind)), lambda: file.load(ref))
