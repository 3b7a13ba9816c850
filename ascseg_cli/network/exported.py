"""What an exported ONNX file says of itself, read without any ONNX library. Never imports torch.

An ONNX file is one protobuf message, a row of fields; the graph is one of them, and `metadata_props` are texts
under keys. Only the row is read here, so that metadata and damage are known before a runtime is loaded.
The format is ONNX's own: onnx.proto, message ModelProto.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from ascseg_cli.errors import WeightsError
from ascseg_cli.network.checkpoint import file_content
from ascseg_cli.network.metadata import KEY, Metadata

SUFFIX = ".onnx"
KEY_EXPORT = "ascseg_export"
_GRAPH, _METADATA, _FUNCTIONS = 7, 14, 25  # field numbers of ModelProto
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types of protobuf
_AGAIN = "export it again"


class Record(BaseModel):
    """How a file was exported: the JSON text under the key `ascseg_export`.

    weights_sha256  of the weights file that it was made from
    precision       of the numbers inside; inputs and outputs are the same for both
    core_only       the network alone: prepared images (b, 3, h, w) in, probabilities at the network's size out
    static          the one size, height and width, that the input must have; None: any
    version         of ascseg
    graph_sha256    of the graph's and the functions' bytes in the file, so that damage is noticed; None: not kept
    metadata_sha256 of the weights' own metadata in the file, threshold and all; None: not kept
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal[1] = 1
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    precision: Literal["float32", "float16"] = "float32"
    opset: StrictInt
    core_only: bool = False
    static: tuple[StrictInt, StrictInt] | None = None
    version: str = ""
    graph_sha256: str | None = None
    metadata_sha256: str | None = None


@dataclass(frozen=True)
class Exported:
    """One exported file: its bytes, their SHA-256, and what they say."""

    metadata: Metadata
    record: Record
    content: bytes
    sha256: str


def is_exported(path: Path) -> bool:
    """Whether a file is to be read as an exported one: its name says so, and nothing is guessed."""
    return path.suffix.lower() == SUFFIX


def read(path: Path) -> Exported:
    """Read a file that `ascseg export` wrote. Raises WeightsError where it is missing, damaged or not ours."""
    return parse(file_content(path, "an exported file"), path)


def parse(content: bytes, path: Path) -> Exported:
    """The same of a file's bytes; errors call them `path`. Raises WeightsError."""
    try:
        fields = list(_fields(content))
        texts = dict(_text(value) for number, value in fields if number == _METADATA)
    except (IndexError, ValueError) as error:
        raise WeightsError(f"{path} is no ONNX file, or is truncated", _hint(content)) from error
    if not any(number == _GRAPH for number, _ in fields):
        raise WeightsError(f"{path} is no ONNX file: it holds no graph", _hint(content))
    metadata, record = _metadata(texts, path), _record(texts, path)
    if record.graph_sha256 is not None and record.graph_sha256 != _hash(fields):
        raise WeightsError(f"{path} is damaged or was altered: its graph isn't the one exported", _AGAIN)
    if record.metadata_sha256 not in (None, _hash_of_text(texts[KEY])):
        raise WeightsError(f"{path} is damaged or was altered: its metadata isn't what was exported", _AGAIN)
    return Exported(metadata, record, content, hashlib.sha256(content).hexdigest())


def with_hash(texts: Mapping[str, str], content: bytes) -> dict[str, str]:
    """A file's texts with the hashes of its graph and its metadata in the record.

    content  the file, with or without texts
    """
    record = Record.model_validate_json(texts[KEY_EXPORT])
    hashes = {"graph_sha256": _hash(_fields(content)), "metadata_sha256": _hash_of_text(texts[KEY])}
    kept = record.model_copy(update=hashes)
    return {**texts, KEY_EXPORT: kept.model_dump_json()}


def _hash(fields: Iterable[tuple[int, bytes]]) -> str:
    digest = hashlib.sha256()
    for number, value in fields:
        if number in (_GRAPH, _FUNCTIONS):
            digest.update(value)
    return digest.hexdigest()


def _hash_of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _hint(content: bytes) -> str:
    return "it looks like safetensors: rename it to *.safetensors" if content[8:9] == b"{" else ""


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message in order: number, and bytes where it has some. Raises IndexError, ValueError."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            length = _varint(content, place)[1] - place
        elif kind == _BYTES:
            length, place = _varint(content, place)
        elif kind in (_EIGHT, _FOUR):
            length = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"field {number} has the wire type {kind}")
        if number == 0 or place + length > len(content):
            raise ValueError(f"field {number} ends after the file")
        yield number, content[place : place + length] if kind == _BYTES else b""
        place += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")


def _text(entry: bytes) -> tuple[str, str]:
    """Key and value of one entry of metadata_props."""
    parts = {number: value.decode("utf-8") for number, value in _fields(entry)}
    return parts.get(1, ""), parts.get(2, "")


def _metadata(texts: dict[str, str], path: Path) -> Metadata:
    if KEY not in texts or KEY_EXPORT not in texts:
        raise WeightsError(
            f"{path} is an ONNX file without ascseg's metadata",
            "only files that `ascseg export` wrote can be run",
        )
    try:
        return Metadata.from_json(texts[KEY])
    except WeightsError as error:
        raise WeightsError(f"{path}: {error.message}", error.hint) from error


def _record(texts: dict[str, str], path: Path) -> Record:
    try:
        return Record.model_validate_json(texts[KEY_EXPORT])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "text"
        if where == "format":
            words = f"{path}: the export's format is {str(first['input'])[:40]}; this release reads format 1"
            raise WeightsError(words, "upgrade ascseg") from error
        raise WeightsError(
            f"{path}: {KEY_EXPORT} is damaged: {where[:80]}: {first['msg'][:200]}", _AGAIN
        ) from error
