"""What a torch checkpoint's pickle may speak of: names, storages, tensors. Descriptions only, nothing built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_RANK = 8
MOST_ELEMENTS = 2**48  # keeps the arithmetic below on small integers

# Named by ordinary checkpoints beside the weights (scores, options, optimisers). Never built, only stepped over.
HARMLESS = frozenset(
    """
    _codecs.encode argparse.Namespace copyreg._reconstructor copy_reg._reconstructor
    collections.Counter collections.defaultdict collections.deque types.SimpleNamespace
    datetime.date datetime.datetime datetime.timedelta
    numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar
    torch.Size torch.Tensor torch.device torch.nn.parameter.Parameter torch.serialization._get_layout
    torch._utils._rebuild_tensor_v3
    """.split()
    + [
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in "bool bytearray bytes complex dict float frozenset int list object set slice str tuple".split()
    ]
    + [
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13
        for name in "Path PosixPath PurePosixPath PureWindowsPath WindowsPath".split()
    ]
)
DTYPES = frozenset(
    f"torch.{name}"
    for name in "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128".split()
)


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names; only ever compared, never looked up."""

    name: str


@dataclass(frozen=True)
class Foreign:
    """The place of an object that the pickle would have built."""

    maker: str


@dataclass(frozen=True)
class StorageRef:
    """A block of numbers elsewhere in the file: its key, torch's name for its type, and its length in elements."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A view into a storage; offset and strides in elements, checked to lie inside it."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Pickled:
    """A pickle's value, each storage's type by its key, and every name that plain data never holds."""

    value: Any
    storages: dict[str, str]
    unknown: list[str]


class NotPlainError(Exception):
    """The pickle is malformed, or does what no saved state dict does."""


def is_harmless(full: str) -> bool:
    """Whether a checkpoint of plain data may name this: our own list, and torch's names of types."""
    module, _, name = full.rpartition(".")
    storage = module in ("torch", "torch.storage") and name.endswith("Storage")
    return storage or full in HARMLESS or full in BUILDERS or full in DTYPES


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRef:
    """A tensor's description, checked to lie inside its storage before a byte of it is read."""
    if not isinstance(storage, StorageRef):
        raise NotPlainError("a tensor in it has no storage")
    numbers = [offset, *_whole(shape), *_whole(strides)]
    plain = all(type(number) is int and 0 <= number < MOST_ELEMENTS for number in numbers)
    if not plain or len(shape) != len(strides):
        raise NotPlainError("a tensor in it has an impossible shape")
    count = last = 1
    for size, stride in zip(shape, strides):
        count, last = count * size, last + (size - 1) * stride
    if count and (offset + last > storage.count or count > storage.count):
        raise NotPlainError(f"a tensor in it reaches beyond its storage of {storage.count:,} elements")
    return TensorRef(storage, offset, tuple(shape), tuple(strides))


def _whole(numbers: Any) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple) or len(numbers) > MAX_RANK:
        raise NotPlainError("a tensor in it has an impossible shape")
    return numbers


def _ordered_dict(pairs: Any = (), *_: Any) -> dict[str, Any]:
    """collections.OrderedDict; Python 2 wrote its items as an argument."""
    items = pairs if isinstance(pairs, (list, tuple)) else ()
    return {pair[0]: pair[1] for pair in items if isinstance(pair, (list, tuple)) and isinstance(pair[0], str)}


def _with_attributes(rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor that carries attributes of its own, as Mamba's parameters do: the tensor alone."""
    if not (isinstance(rebuild, Global) and rebuild.name in _TENSORS and isinstance(arguments, tuple)):
        raise NotPlainError("a tensor in it is of a class that no state dict needs")
    return _TENSORS[rebuild.name](*arguments)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}
BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    **_TENSORS,
}
