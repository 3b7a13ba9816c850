"""The selective scan in standard ONNX operators, for any number of tokens.

The tokens are cut into about √l chunks of about √l tokens. One `Scan` runs over all chunks side by side and keeps
only their last states; one over those gives the state in which each chunk begins; one runs over the chunks again,
from there: 3·√l short steps in place of l. Decays are multiplied and never divided by, so it is safe for any Δ.
B and C are made from x inside the steps, since that is cheaper than to keep and turn them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ascseg_cli.graphs.to_onnx.graph import Graph

Step = Callable[..., tuple[str, list[str]]]  # graph, state, what a step is given -> next state, what it gives


@dataclass(frozen=True)
class Cut:
    """How tokens are cut into chunks; each is the name of one whole number, 1-D.

    rows    independent sequences
    tokens  of each
    length  of a chunk, ⌈√tokens⌉
    chunks  of each sequence, ⌈tokens / length⌉
    width   rows · chunks: what one step sees side by side
    """

    rows: str
    tokens: str
    length: str
    chunks: str
    width: str


def selective_scan(g: Graph, x: str, delta: str, A: np.ndarray, B: np.ndarray, C: np.ndarray, name: str) -> str:
    """See `description.Operations.selective_scan`. Source: Gu and Dao 2023, section 3."""
    e, n = A.shape
    at = _cut(g, x)
    x, delta = (_by_step(g, t, at, e) for t in (x, delta))  # (rows, e, l) -> (length, e, width)
    steps = (delta, g.op("Mul", delta, x), x)
    rate = g.exact(f"{name}.A", A[:, :, None])
    into, out = (g.exact(f"{name}.{letter}", values) for letter, values in (("B", B), ("C", C)))

    def last_state(b: Graph, s: str, *given: str) -> tuple[str, list[str]]:
        return _next_state(b, rate, into, s, *given), []

    def output(b: Graph, s: str, *given: str) -> tuple[str, list[str]]:
        s = _next_state(b, rate, into, s, *given)
        seen = b.op("Mul", s, b.op("MatMul", out, given[-1]))  # (e, n, width)
        return s, [b.op("ReduceSum", seen, b.whole(1), keepdims=0)]

    last = _scan(g, last_state, _zeros(g, e, n, at.width), steps)[0]  # (e, n, width)
    total = g.op("ReduceSum", delta, g.whole(0), keepdims=0)  # (length, e, width) -> (e, width)
    survival = _decay(g, rate, total)  # (e, n, width)
    y = _scan(g, output, _first_states(g, last, survival, at, e, n), steps)[1]
    return _by_token(g, y, at, e)


def _cut(g: Graph, x: str) -> Cut:
    """The cut of x (rows, e, tokens)."""
    rows, _, tokens = g.split("Split", g.op("Shape", x), outputs=3, num_outputs=3)
    length = g.cast(g.op("Ceil", g.op("Sqrt", g.cast(tokens, "float32"))), "int64")
    chunks = g.op("Div", g.op("Sub", g.op("Add", tokens, length), g.whole(1)), length)
    return Cut(rows, tokens, length, chunks, g.op("Mul", rows, chunks))


def _by_step(g: Graph, x: str, at: Cut, e: int) -> str:
    """(rows, e, l) -> (length, e, width), with zeros behind the last token: they change no state."""
    lack = g.op("Sub", g.op("Mul", at.length, at.chunks), at.tokens)
    padded = g.op("Pad", x, _shape(g, 0, 0, 0, 0, 0, lack))
    turned = g.op(
        "Transpose", g.op("Reshape", padded, _shape(g, at.rows, e, at.chunks, at.length)), perm=[3, 1, 0, 2]
    )
    return g.op("Reshape", turned, _shape(g, at.length, e, at.width))


def _by_token(g: Graph, y: str, at: Cut, e: int) -> str:
    """The way back."""
    parted = g.op("Reshape", y, _shape(g, at.length, e, at.rows, at.chunks))
    joined = g.op("Reshape", g.op("Transpose", parted, perm=[2, 1, 3, 0]), _shape(g, at.rows, e, -1))
    return g.op("Slice", joined, g.whole(0), at.tokens, g.whole(2))


def _next_state(b: Graph, rate: str, into: str, s: str, delta: str, drive: str, x: str) -> str:
    """s (e, n, width); delta, drive, x (e, width)."""
    arriving = b.op("Mul", b.op("Unsqueeze", drive, b.whole(1)), b.op("MatMul", into, x))
    return b.op("Add", b.op("Mul", _decay(b, rate, delta), s), arriving)


def _decay(g: Graph, rate: str, delta: str) -> str:
    """exp(Δ A): delta (e, width) -> (e, n, width)."""
    return g.op("Exp", g.op("Mul", g.op("Unsqueeze", delta, g.whole(1)), rate))


def _first_states(g: Graph, last: str, survival: str, at: Cut, e: int, n: int) -> str:
    """The state (e, n, width) in which each chunk begins: what is left of all chunks before it."""
    parted = (g.op("Reshape", t, _shape(g, e, n, at.rows, at.chunks)) for t in (last, survival))
    steps = [g.op("Transpose", t, perm=[3, 0, 1, 2]) for t in parted]

    def first_state(b: Graph, s: str, end: str, kept: str) -> tuple[str, list[str]]:
        return b.op("Add", b.op("Mul", s, kept), end), [b.op("Identity", s)]

    found = _scan(g, first_state, _zeros(g, e, n, at.rows), steps)[1]  # (chunks, e, n, rows)
    return g.op("Reshape", g.op("Transpose", found, perm=[1, 2, 3, 0]), _shape(g, e, n, at.width))


def _scan(g: Graph, step: Step, state: str, inputs: Sequence[str]) -> list[str]:
    """The last state, then what the steps give, one above the other."""
    from onnx import TensorProto, helper

    b = g.body()
    given = [b.fresh(f"{step.__name__}_given") for _ in range(1 + len(inputs))]
    after, results = step(b, *given)
    before, behind = (
        [helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in names]
        for names in (given, [after, *results])
    )
    body = helper.make_graph(b.nodes, step.__name__, before, behind)
    return g.split("Scan", state, *inputs, outputs=1 + len(results), body=body, num_scan_inputs=len(inputs))


def _shape(g: Graph, *sizes: int | str) -> str:
    """A list of whole numbers, some known and some to be computed."""
    return g.op("Concat", *(g.whole(s) if isinstance(s, int) else s for s in sizes), axis=0)


def _zeros(g: Graph, *sizes: int | str) -> str:
    return g.op("ConstantOfShape", _shape(g, *sizes))
