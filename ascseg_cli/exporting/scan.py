"""The selective scan in standard ONNX operators, for any number of tokens.

The tokens are cut into about √l chunks of about √l tokens. One `Scan` runs over all chunks side by side and keeps
only their last states, one over those gives the state in which each chunk begins, and one runs over the chunks again
from there: 3·√l short steps in place of l. Decays are multiplied and never divided by, so it is safe for any Δ.
B and C are made from x inside the steps, since that is cheaper than to keep and turn them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ascseg_cli.exporting.graph import Graph


@dataclass(frozen=True)
class Cut:
    """How tokens are cut into chunks; each is the name of a whole number, 1-D of one element.

    rows    independent sequences
    tokens  of each
    length  of a chunk
    chunks  of each sequence
    """

    rows: str
    tokens: str
    length: str
    chunks: str


def cut(g: Graph, x: str) -> Cut:
    """The cut of x (rows, e, tokens): length = ⌈√tokens⌉, chunks = ⌈tokens / length⌉."""
    rows, _, tokens = g.split("Split", g.op("Shape", x), outputs=3, num_outputs=3)
    root = g.op("Ceil", g.op("Sqrt", g.cast(tokens, "float32")))
    length = g.cast(root, "int64")
    chunks = g.op("Div", g.op("Sub", g.op("Add", tokens, length), g.whole(1)), length)
    return Cut(rows, tokens, length, chunks)


def selective_scan(g: Graph, x: str, delta: str, A: np.ndarray, B: np.ndarray, C: np.ndarray) -> str:
    """y_k = C_k · s_k with s_k = exp(Δ_k A) · s_(k−1) + Δ_k B_k x_k, s_0 = 0, B_k = B x_k, C_k = C x_k.

    x, delta  (rows, e, l) float32; delta is positive
    A         (e, n); B, C (n, e)
    returns   (rows, e, l)
    Source: Gu and Dao 2023, section 3.
    """
    e, n = A.shape
    at = cut(g, x)
    width = g.op("Mul", at.rows, at.chunks)
    x, delta = (_by_step(g, t, at, width, e) for t in (x, delta))  # (length, e, width)
    drive = g.op("Mul", delta, x)
    decay = g.exact("A", A[:, :, None])
    project = {name: g.exact(name, values) for name, values in (("B", B), ("C", C))}
    zero = _zeros(g, g.whole(e, n), width)
    last = _last_states(g, decay, project["B"], zero, (delta, drive, x), e)
    total = g.op("ReduceSum", delta, g.whole(0), keepdims=0)  # (e, width)
    survival = g.op("Exp", g.op("Mul", g.op("Unsqueeze", total, g.whole(1)), decay))  # (e, n, width)
    first = _first_states(g, last, survival, at, e, n, width)
    y = _outputs(g, decay, project, first, (delta, drive, x), e)  # (length, e, width)
    return _by_token(g, y, at, e)


def _by_step(g: Graph, x: str, at: Cut, width: str, e: int) -> str:
    """(rows, e, l) -> (length, e, rows · chunks), with zeros behind the last token: they change no state."""
    lack = g.op("Sub", g.op("Mul", at.length, at.chunks), at.tokens)
    padded = g.op("Pad", x, g.op("Concat", g.whole(0, 0, 0, 0, 0), lack, axis=0))
    shape = g.op("Concat", at.rows, g.whole(e), at.chunks, at.length, axis=0)
    turned = g.op("Transpose", g.op("Reshape", padded, shape), perm=[3, 1, 0, 2])
    return g.op("Reshape", turned, g.op("Concat", at.length, g.whole(e), width, axis=0))


def _by_token(g: Graph, y: str, at: Cut, e: int) -> str:
    """The way back."""
    split = g.op("Reshape", y, g.op("Concat", at.length, g.whole(e), at.rows, at.chunks, axis=0))
    turned = g.op("Transpose", split, perm=[2, 1, 3, 0])
    joined = g.op("Reshape", turned, g.op("Concat", at.rows, g.whole(e, -1), axis=0))
    return g.op("Slice", joined, g.whole(0), at.tokens, g.whole(2))


def _zeros(g: Graph, *shape: str) -> str:
    return g.op("ConstantOfShape", g.op("Concat", *shape, axis=0))


def _last_states(g: Graph, decay: str, B: str, zero: str, steps: tuple[str, str, str], e: int) -> str:
    """The state (e, n, width) in which each chunk would end, had it begun with zero."""

    def step(b: Graph, s: str, delta: str, drive: str, x: str) -> tuple[str, list[str]]:
        return _next_state(b, decay, B, s, delta, drive, x), []

    return _scan(g, "last_states", step, zero, steps)[0]


def _outputs(
    g: Graph, decay: str, project: dict[str, str], first: str, steps: tuple[str, str, str], e: int
) -> str:
    """The outputs (length, e, width) of chunks that begin with these states."""

    def step(b: Graph, s: str, delta: str, drive: str, x: str) -> tuple[str, list[str]]:
        s = _next_state(b, decay, project["B"], s, delta, drive, x)
        seen = b.op("Mul", s, b.op("MatMul", project["C"], x))  # (e, n, width)
        return s, [b.op("ReduceSum", seen, b.whole(1), keepdims=0)]

    return _scan(g, "outputs", step, first, steps)[1]


def _next_state(b: Graph, decay: str, B: str, s: str, delta: str, drive: str, x: str) -> str:
    """s (e, n, width); delta, drive, x (e, width)."""
    one = b.whole(1)
    kept = b.op("Mul", b.op("Exp", b.op("Mul", b.op("Unsqueeze", delta, one), decay)), s)
    return b.op("Add", kept, b.op("Mul", b.op("Unsqueeze", drive, one), b.op("MatMul", B, x)))


def _first_states(g: Graph, last: str, survival: str, at: Cut, e: int, n: int, width: str) -> str:
    """The state (e, n, width) in which each chunk begins: what is left of all chunks before it."""
    shape = g.op("Concat", g.whole(e, n), at.rows, at.chunks, axis=0)
    steps = [g.op("Transpose", g.op("Reshape", t, shape), perm=[3, 0, 1, 2]) for t in (last, survival)]

    def step(b: Graph, s: str, end: str, kept: str) -> tuple[str, list[str]]:
        return b.op("Add", b.op("Mul", s, kept), end), [b.op("Identity", s)]

    zero = _zeros(g, g.whole(e, n), at.rows)
    found = _scan(g, "first_states", step, zero, steps)[1]  # (chunks, e, n, rows)
    return g.op(
        "Reshape", g.op("Transpose", found, perm=[1, 2, 3, 0]), g.op("Concat", g.whole(e, n), width, axis=0)
    )


Step = Callable[..., tuple[str, list[str]]]


def _scan(g: Graph, name: str, step: Step, state: str, inputs: Sequence[str]) -> list[str]:
    """The last state, then what the steps give, one above the other."""
    from onnx import TensorProto, helper

    b = g.body()
    with b.part(name):
        given = [b._name("given") for _ in range(len(inputs) + 1)]
        after, results = step(b, *given)
        info: list[list[Any]] = [
            [helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in names]
            for names in (given, [after, *results])
        ]
        body = b.built(name, *info, whole=False)
    return g.split("Scan", state, *inputs, outputs=1 + len(results), body=body, num_scan_inputs=len(inputs))
