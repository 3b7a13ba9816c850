"""Eight or sixteen numbers side by side as one value in numba code: one SIMD register, or two, or four.

LLVM vectorises loops when it feels like it, and numba's loops over 16 states it mostly doesn't. A `Lanes` value
is an LLVM vector from the start, so the same kernel is one AVX-512 register, two of AVX2 or four of NEON,
compiles fast and needs no fast-math, which would break NaN. Only numba code can use it.
"""

from __future__ import annotations

import operator
from typing import Any

import numba.extending
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from ascseg_cli.kernels.blocks import WIDTH

intrinsic: Any = numba.extending.intrinsic  # whose annotations count the typing context as an argument
# a part of a kernel: without the ways in from Python and C, which take longest to compile
_jit: Any = numba.njit
part = _jit(no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)


class Lanes(types.Type):
    """The numba type: `width` float32 or, if whole, int32."""

    def __init__(self, width: int, whole: bool = False) -> None:
        self.width, self.whole = width, whole
        super().__init__(name=f"{'Whole' if whole else ''}Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.VectorType(_INT if kind.whole else _FLOAT, kind.width))


def _constant(like: Any, value: float) -> Any:
    return ir.Constant(like, [value] * like.count)


def _call(builder: Any, name: str, *values: Any) -> Any:
    """LLVM's own function `name`, on vectors."""
    kind = values[0].type
    function = ir.FunctionType(kind, [kind] * len(values))
    return builder.call(
        cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{kind.count}f32"), values
    )


def _shuffle(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(order)), order))


def _broadcast(builder: Any, scalar: Any, width: int) -> Any:
    nothing = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(_INT, 0))
    return _shuffle(builder, first, nothing, [0] * width)


# ---- memory: flat arrays, an index of the first element; nothing is checked ---------------------------------


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _loader(width: int) -> Any:
    @intrinsic
    def load(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.VectorType(_FLOAT, width)
            value = builder.load(_address(context, builder, signature.args[0], args[0], args[1], kind))
            value.align = 4
            return value

        return Lanes(width)(array, types.intp), generate

    return load


load = _loader(WIDTH)
load8 = _loader(8)


@intrinsic
def load_bytes(typing: Any, array: Any, index: Any) -> Any:
    """As `load`, of an array of uint8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), WIDTH)
        value = builder.load(_address(context, builder, signature.args[0], args[0], args[1], kind))
        value.align = 1
        return builder.uitofp(value, ir.VectorType(_FLOAT, WIDTH))

    return Lanes(WIDTH)(array, types.intp), generate


@intrinsic
def spread_at(typing: Any, array: Any, index: Any) -> Any:
    """array[index] in every lane, in one instruction; unlike numba's indexing, never from the end."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = builder.load(_address(context, builder, signature.args[0], args[0], args[1], _FLOAT))
        return _broadcast(builder, scalar, WIDTH)

    return Lanes(WIDTH)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """array[index : index + width] = lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1], args[2].type)
        builder.store(args[2], address).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


# ---- arithmetic --------------------------------------------------------------------------------------------


def _spreader(width: int, scalar: Any) -> Any:
    @intrinsic
    def spread(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _broadcast(builder, args[0], width)

        return Lanes(width, scalar is types.int32)(scalar), generate

    return spread


spread = _spreader(WIDTH, types.float32)
spread8 = _spreader(8, types.float32)
spread_whole = _spreader(WIDTH, types.int32)


def _arithmetic(symbol: Any, name: str) -> None:
    """a symbol b for Lanes of one kind, or Lanes and a number, which then stands in every lane."""

    @infer_global(symbol)
    class Lanewise(AbstractTemplate):
        def generic(self, args: Any, keywords: Any) -> Any:
            kinds = [kind for kind in args if isinstance(kind, Lanes)]
            if not kinds or any(kind != kinds[0] and not isinstance(kind, types.Number) for kind in args):
                return None
            number = types.int32 if kinds[0].whole else types.float32
            return signature(kinds[0], *(kind if isinstance(kind, Lanes) else number for kind in args))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        a, b = (
            v if isinstance(t, Lanes) else _broadcast(builder, v, kind.width) for t, v in zip(signature.args, args)
        )
        return getattr(builder, name if kind.whole else f"f{name}")(a, b)

    for kinds in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(symbol, *kinds)(generate)


_arithmetic(operator.add, "add")
_arithmetic(operator.sub, "sub")
_arithmetic(operator.mul, "mul")
_arithmetic(operator.truediv, "div")


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, in one instruction where the machine has it."""
    return a(a, a, a), lambda context, builder, signature, args: _call(builder, "fmuladd", *args)


@intrinsic
def floor(typing: Any, a: Any) -> Any:
    return a(a), lambda context, builder, signature, args: _call(builder, "floor", *args)


@intrinsic
def absolute(typing: Any, a: Any) -> Any:
    return a(a), lambda context, builder, signature, args: _call(builder, "fabs", *args)


@intrinsic
def root(typing: Any, a: Any) -> Any:
    """The square root."""
    return a(a), lambda context, builder, signature, args: _call(builder, "sqrt", *args)


@intrinsic
def where_less(typing: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """x where a < b, else y; y where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return x(a, a, x, x), generate


@intrinsic
def least(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two whole Lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed("<", *args), *args)

    return a(a, a), generate


@intrinsic
def whole(typing: Any, a: Any) -> Any:
    """Whole Lanes from finite float Lanes within int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fptosi(args[0], ir.VectorType(_INT, args[0].type.count))

    return Lanes(a.width, True)(a), generate


@intrinsic
def power_of_two(typing: Any, shifted: Any) -> Any:
    """2^k from k + 1.5 · 2^23, whose low bits hold k: -127 gives 0, 128 infinity."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_INT, args[0].type.count)
        bits = builder.shl(builder.bitcast(args[0], kind), _constant(kind, 23))
        return builder.bitcast(builder.add(bits, _constant(kind, 127 << 23)), args[0].type)

    return shifted(shifted), generate


# ---- pairs of neighbours -----------------------------------------------------------------------------------


def _pair_shuffle(first: int, step: int) -> Any:
    """Of a and b side by side, the lanes first, first + step, … (step 2), or both interleaved (step 0)."""

    @intrinsic
    def shuffled(typing: Any, a: Any, b: Any) -> Any:
        half = a.width // 2
        order = [first + step * lane for lane in range(a.width)]
        if not step:
            order = [first * half + lane // 2 + lane % 2 * a.width for lane in range(a.width)]
        return a(a, a), lambda context, builder, signature, args: _shuffle(builder, args[0], args[1], order)

    return shuffled


evens, odds = _pair_shuffle(0, 2), _pair_shuffle(1, 2)  # of 32 numbers, those at even and at odd places
merged_low, merged_high = _pair_shuffle(0, 0), _pair_shuffle(1, 0)  # the other way round: a0 b0 a1 b1 …


@intrinsic
def turn(typing: Any, source: Any, at: Any, step: Any, target: Any, to: Any, pitch: Any) -> Any:
    """Eight rows of eight numbers, `step` apart, become the columns of eight rows `pitch` apart."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_FLOAT, 8)

        def place(array: int, row: int) -> Any:
            start = builder.add(args[array + 1], builder.mul(args[array + 2], ir.Constant(args[1].type, row)))
            return _address(context, builder, signature.args[array], args[array], start, kind)

        rows = [builder.load(place(0, row), align=4) for row in range(8)]
        for size in (4, 2, 1):  # swap the blocks of this size beside the diagonal
            low = [lane if not lane & size else lane - size + 8 for lane in range(8)]
            high = [lane + size if not lane & size else lane + 8 for lane in range(8)]
            for row in (row for row in range(8) if not row & size):
                a, b = rows[row], rows[row + size]
                rows[row], rows[row + size] = _shuffle(builder, a, b, low), _shuffle(builder, a, b, high)
        for row in range(8):
            builder.store(rows[row], place(3, row), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


# ---- sums across lanes -------------------------------------------------------------------------------------


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of all lanes, a float32; halves are added, so the order is fixed."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = args[0]
        while (half := lanes.type.count // 2) > 0:
            low, high = list(range(half)), list(range(half, 2 * half))
            lanes = builder.fadd(_shuffle(builder, lanes, lanes, low), _shuffle(builder, lanes, lanes, high))
        return builder.extract_element(lanes, ir.Constant(_INT, 0))

    return types.float32(a), generate


@intrinsic
def row_totals(typing: Any, array: Any, index: Any) -> Any:
    """The sums of 16 rows of 16 numbers that start at index: 45 instructions, where 16 `total` take 144."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_FLOAT, WIDTH)
        rows = []
        for row in range(WIDTH):
            start = builder.add(args[1], ir.Constant(args[1].type, row * WIDTH))
            rows.append(builder.load(_address(context, builder, signature.args[0], args[0], start, kind)))
            rows[-1].align = 4
        return _add_up(builder, rows)

    return Lanes(WIDTH)(array, types.intp), generate


def _add_up(builder: Any, rows: list[Any]) -> Any:
    for size in (8, 4, 2, 1):
        low = _low_halves(size)
        high = [lane + size for lane in low]
        pairs = zip(rows[::2], rows[1::2])
        rows = [builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high)) for a, b in pairs]
    return _shuffle(builder, rows[0], rows[0], _order())


def _low_halves(size: int) -> list[int]:
    """Of two rows side by side, the first half of each block of 2 · size lanes; what is added to it lies size on.

    Small blocks stay within four lanes, since AVX2 shuffles across 128 bits only in whole halves.
    """
    if size >= 4:
        return [lane for lane in range(2 * WIDTH) if lane // size % 2 == 0]
    quads = [(row * WIDTH + quad * 4) for quad in range(WIDTH // 4) for row in (0, 1)]
    return [quad + lane for quad in quads for lane in range(4) if lane // size % 2 == 0]


def _order() -> list[int]:
    """The lane in which `_add_up` leaves each row's sum: the rows' numbers go through the same tree."""
    rows = [[row] * WIDTH for row in range(WIDTH)]
    for size in (8, 4, 2, 1):
        rows = [[(a + b)[lane] for lane in _low_halves(size)] for a, b in zip(rows[::2], rows[1::2])]
    return [rows[0].index(row) for row in range(WIDTH)]
