"""The two containers of torch.save: where a checkpoint's storages lie, each checked before it is read."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from ascseg_cli.weights.naming import printable
from ascseg_cli.weights.pickled import NotPlainError, Pickled, StorageRef, TensorRef
from ascseg_cli.weights.unpickle import read_pickle

MOST_PICKLE_BYTES = 16 * 2**20
MOST_DIRECTORY_BYTES = 16 * 2**20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error)

# torch's names for storages, as numpy types; bfloat16 has none and is read as the upper half of a float32
DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}


@dataclass(frozen=True)
class TorchFile:
    """What a checkpoint holds, and a function that gives a storage's bytes."""

    content: Pickled
    storage_bytes: Callable[[StorageRef], bytes]
    big_endian: bool = False

    def load(self, tensor: TensorRef) -> np.ndarray:
        """The values of one tensor, of its own shape, in the machine's byte order; bfloat16 as float32."""
        ref = tensor.storage
        dtype = _dtype(ref.kind).newbyteorder(">" if self.big_endian else "<")
        data = self.storage_bytes(ref)
        if len(data) != ref.count * dtype.itemsize:
            raise NotPlainError(
                f"storage {printable(ref.key)} has {len(data):,} bytes, not {ref.count:,} elements"
            )
        flat = np.frombuffer(data, dtype)[tensor.offset :]
        if math.prod(tensor.shape) == 0:
            return np.zeros(tensor.shape, dtype.newbyteorder("="))
        steps = tuple(stride * dtype.itemsize for stride in tensor.strides)
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
        values = view.astype(dtype.newbyteorder("="))
        return widen_bfloat16(values) if ref.kind == "BFloat16Storage" else values


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers whose upper 16 bits these are: bfloat16 is exactly that."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_torch_file(data: bytes) -> TorchFile:
    """Take a checkpoint of either container apart. Raises NotPlainError."""
    return _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)


def _read_zip(data: bytes) -> TorchFile:
    _check_directory(data)
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except _ZIP_ERRORS as error:
        raise NotPlainError(f"its zip archive is damaged ({printable(error)})") from error
    entries = _entries(archive, len(data))
    root = _root(entries)

    def read(name: str) -> bytes:
        if root + name not in entries:
            raise NotPlainError(f"its zip archive lacks {printable(name)}")
        try:
            return archive.read(entries[root + name])
        except _ZIP_ERRORS as error:
            raise NotPlainError(f"its zip archive is damaged ({printable(error)})") from error

    big_endian = f"{root}byteorder" in entries and read("byteorder") == b"big"
    return TorchFile(read_pickle(read("data.pkl")), lambda ref: read(f"data/{ref.key}"), big_endian)


def _check_directory(data: bytes) -> None:
    """Refuse a zip directory of absurd length before `zipfile` makes an object of each entry."""
    at = data.rfind(b"PK\x05\x06", -66_000)
    if at < 0 or len(data) < at + 22:
        raise NotPlainError("its zip archive is truncated")
    length = struct.unpack_from("<I", data, at + 12)[0]
    if length == 0xFFFFFFFF:  # a zip64 archive: its own end record lies before
        wide = data.rfind(b"PK\x06\x06", 0, at)
        length = struct.unpack_from("<Q", data, wide + 40)[0] if 0 <= wide <= at - 56 else length
    if length > MOST_DIRECTORY_BYTES:
        raise NotPlainError(f"its zip directory claims {length:,} bytes, more than any checkpoint's")


def _entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by name: all stored plainly, none twice, together no longer than the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise NotPlainError("its zip archive is compressed or encrypted, which torch.save never writes")
        if entry.filename in entries:
            raise NotPlainError("its zip archive holds one name twice")
        entries[entry.filename] = entry
        total += entry.file_size
    if total > file_size:
        raise NotPlainError(f"its zip archive claims {total:,} bytes in a file of {file_size:,}")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if any(f"{root}constants.pkl" in entries for root in roots):
        raise NotPlainError("it is a TorchScript archive, a program, not a checkpoint")
    if len(roots) != 1:
        raise NotPlainError("it is a zip archive, but not one of torch.save's")
    if entries[f"{roots[0]}data.pkl"].file_size > MOST_PICKLE_BYTES:
        raise NotPlainError(f"its pickle is longer than {MOST_PICKLE_BYTES:,} bytes")
    return roots[0]


def _read_legacy(data: bytes) -> TorchFile:
    """torch.save's form before 1.6: magic, protocol, system, content and keys as pickles, then the storages."""
    stream = BytesIO(data)
    first = read_pickle(stream)
    if first.value != LEGACY_MAGIC:
        return TorchFile(first, _no_storage)  # a bare pickle: the caller says what is wrong with it
    protocol, system, content, keys = (read_pickle(stream) for _ in range(4))
    little = system.value.get("little_endian") if isinstance(system.value, dict) else None
    if protocol.value != LEGACY_PROTOCOL or not isinstance(little, bool) or not isinstance(keys.value, list):
        raise NotPlainError("its header is damaged")
    order = "<" if little else ">"
    places = _legacy_places(data, stream.tell(), keys.value, content.storages, order)

    def storage_bytes(ref: StorageRef) -> bytes:
        if ref.key not in places:
            raise NotPlainError(f"storage {printable(ref.key)} is missing")
        return data[places[ref.key]]

    return TorchFile(content, storage_bytes, big_endian=not little)


def _no_storage(ref: StorageRef) -> bytes:
    raise NotPlainError(f"storage {printable(ref.key)} is missing")


def _legacy_places(data: bytes, at: int, keys: list[Any], kinds: dict[str, str], order: str) -> dict[str, slice]:
    """Where each storage lies behind the pickles: a count of elements in 8 bytes, then the elements."""
    places: dict[str, slice] = {}
    for key in keys:
        if not isinstance(key, str) or key not in kinds or len(data) < at + 8:
            raise NotPlainError("its storages are truncated")
        count = struct.unpack_from(order + "q", data, at)[0]
        end = at + 8 + count * _dtype(kinds[key]).itemsize
        if count < 0 or end > len(data):
            raise NotPlainError("its storages are truncated")
        places[key], at = slice(at + 8, end), end
    return places


def _dtype(kind: str) -> np.dtype[Any]:
    if kind not in DTYPES:
        raise NotPlainError(f"it holds a {printable(kind)}, which is no plain number type")
    return np.dtype(DTYPES[kind])
