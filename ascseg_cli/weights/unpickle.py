"""What a pickle says, without doing it: tensors' descriptions out of a torch checkpoint.

A pickle is a program that may call any function. This module never runs one: `pickletools` takes it apart
(it only parses), and a small stack machine builds dicts, lists, tuples, numbers, strings and descriptions
of tensors. Everything else a pickle names stays an inert name. `torch.load(weights_only=True)` isn't used:
it ran code in torch before 2.6 (CVE-2025-32434), which we still accept, and it allocates what a file claims.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from ascseg_cli.weights.naming import printable
from ascseg_cli.weights.pickled import (
    BUILDERS,
    MOST_ELEMENTS,
    Foreign,
    Global,
    NotPlainError,
    Pickled,
    StorageRef,
    is_harmless,
)

MAX_OPERATIONS = 2_000_000  # the base variant with its optimiser takes 60,000


def read_pickle(data: bytes | BytesIO) -> Pickled:
    """The value that a pickle describes, with nothing executed; a stream is left just behind its STOP.

    Raises NotPlainError on anything malformed, too long, or outside what torch.save writes for plain data.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickletools, on odd escapes in old strings
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count >= MAX_OPERATIONS:
                    raise NotPlainError(f"its pickle has more than {MAX_OPERATIONS:,} operations")
                machine.step(opcode.name, argument)
        return Pickled(machine.stack.pop(), machine.storages, list(machine.unknown))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise NotPlainError(f"its pickle is malformed ({printable(error) or type(error).__name__})") from error


@dataclass
class _Machine:
    """The unpickler's stack and memo, with handlers for building data and none for calling anything."""

    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)  # an ordered set

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.push(argument)
        elif name in _FIXED:
            self.push(_FIXED[name]())
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise NotPlainError(f"its pickle uses the operation {name}, which no state dict needs")

    def pop(self) -> Any:
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def name_global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise NotPlainError("its pickle computes a name instead of giving it")
        full = f"{module}.{name}"
        if not is_harmless(full):
            self.unknown[full] = None
        self.push(Global(full))

    def call(self, function: Any, arguments: Any) -> None:
        """REDUCE and its kin: what rebuilds tensors and dicts is understood, all else leaves a placeholder."""
        name = function.name if isinstance(function, Global) else "an object"
        if name in BUILDERS and isinstance(arguments, tuple):
            self.push(BUILDERS[name](*arguments))
        else:
            self.push(Foreign(name))

    def set_items(self, target: Any, flat: list[Any]) -> None:
        """Only string keys are kept: others (an optimiser's numbers) lead to nothing that we import."""
        if len(flat) % 2:
            raise NotPlainError("its pickle sets a key without a value")
        if isinstance(target, dict):
            for key, value in zip(flat[::2], flat[1::2]):
                if isinstance(key, str):
                    target[key] = value

    def persistent(self, identity: Any) -> None:
        match identity:
            case ("storage", Global(name=name), str(key), _, int(count), *rest) if rest in ([], [None]):
                kind = name.rpartition(".")[2]
                if self.storages.setdefault(key, kind) != kind or not 0 <= count < MOST_ELEMENTS:
                    raise NotPlainError("a storage in it contradicts itself")
                self.push(StorageRef(key, kind, count))
            case ("module", Global(name=name), *_):
                self.unknown[name] = None
                self.push(Foreign(name))
            case _:
                raise NotPlainError("its pickle refers to a storage in a way that torch never writes")


def _get(machine: _Machine, index: Any) -> None:
    machine.push(machine.memo[index])


def _put(machine: _Machine, index: Any) -> None:
    if not 0 <= index < MAX_OPERATIONS:
        raise NotPlainError("its pickle numbers its memo as torch never does")
    machine.memo[index] = machine.stack[-1]


def _tuple_of(size: int) -> Callable[[_Machine, Any], None]:
    def build(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < size:
            raise IndexError("stack is too short")
        machine.stack[-size:] = [tuple(machine.stack[-size:])]

    return build


def _mark(machine: _Machine, _: Any) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _append(machine: _Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(items)


def _dict(machine: _Machine, _: Any) -> None:
    items: dict[str, Any] = {}
    machine.set_items(items, machine.pop_mark())
    machine.push(items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items(machine.stack[-1], [key, value])


def _set_items(machine: _Machine, _: Any) -> None:
    flat = machine.pop_mark()
    machine.set_items(machine.stack[-1], flat)


def _call(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _call_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _call(machine, None)


def _name(machine: _Machine, argument: Any) -> None:
    machine.name_global(*argument.split(" ", 1))


def _name_from_stack(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name_global(module, name)


def _instance(machine: _Machine, argument: Any) -> None:
    arguments = machine.pop_mark()
    _name(machine, argument)
    machine.call(machine.pop(), tuple(arguments))


def _object(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.pop_mark()
    machine.call(function, tuple(arguments))


_HANDLERS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _mark,
    "POP": lambda machine, _: machine.pop() if machine.stack else machine.pop_mark(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": _dict,
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_mark()),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "FROZENSET": lambda machine, _: machine.push(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: _append(machine, machine.pop_mark()),
    "GLOBAL": _name,
    "STACK_GLOBAL": _name_from_stack,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_keywords,
    "BUILD": lambda machine, _: machine.pop(),
    "BINPERSID": lambda machine, _: machine.persistent(machine.pop()),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    **{name: _put for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{name: _get for name in ("GET", "BINGET", "LONG_BINGET")},
}

_CONSTANTS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()
)
_FIXED: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
