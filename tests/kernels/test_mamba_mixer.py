"""Mamba's mixer on three rungs: nested loops in float64, plain torch, the compiled chunks."""

from __future__ import annotations

import math

import pytest
import torch
from cases import assert_as_exact
from torch import Tensor

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.mamba_mixer import mamba_mixer, reference


def inputs(b: int, l: int, d: int, n: int = 16, r: int = 1, planar: bool = True) -> list[Tensor]:
    e = 2 * d
    t = torch.randn(b, d, l).transpose(1, 2) if planar else torch.randn(b, l, d)
    shapes = [(2 * e, d), (e, 1, 4), (e,), (r + 2 * n, e), (e, r), (e,)]
    decay = torch.rand(e, n).mul(3).sub(0.5)
    return [t, *(torch.randn(shape) * 0.6 for shape in shapes), decay, torch.randn(e), torch.randn(d, e) * 0.6]


def oracle(t, in_proj, conv, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, out_proj):
    """The definition, one token after another."""
    (b, l, d), (e, n), r = t.shape, A_log.shape, dt_proj.shape[1]
    silu = lambda v: v / (1 + math.exp(-v))  # noqa: E731
    y = torch.zeros(b, l, d, dtype=torch.float64)
    for row in range(b):
        states, seen = torch.zeros(e, n, dtype=torch.float64), []
        for k in range(l):
            seen.append([sum(float(in_proj[c, i] * t[row, k, i]) for i in range(d)) for c in range(2 * e)])
            x = []
            for c in range(e):
                past = [(seen[k - 3 + j][c] if k - 3 + j >= 0 else 0.0) for j in range(4)]
                x.append(silu(float(conv_bias[c]) + sum(float(conv[c, 0, j]) * past[j] for j in range(4))))
            p = [sum(float(x_proj[o, c]) * x[c] for c in range(e)) for o in range(r + 2 * n)]
            out = []
            for c in range(e):
                raw = sum(float(dt_proj[c, i]) * p[i] for i in range(r)) + float(dt_bias[c])
                step, total = math.log1p(math.exp(raw)), float(D[c]) * x[c]
                for s in range(n):
                    decay = math.exp(-math.exp(float(A_log[c, s])) * step)
                    states[c, s] = decay * states[c, s] + step * p[r + s] * x[c]
                    total += p[r + n + s] * float(states[c, s])
                out.append(total * silu(seen[k][e + c]))
            for i in range(d):
                y[row, k, i] = sum(float(out_proj[i, c]) * out[c] for c in range(e))
    return y


@pytest.mark.parametrize("r", [1, 2])
def test_reference_is_the_definition(r):
    torch.manual_seed(0)
    arguments = [t.double() for t in inputs(2, 7, 2, n=3, r=r)]
    torch.testing.assert_close(reference.mamba_mixer(*arguments), oracle(*arguments), rtol=1e-11, atol=1e-12)


SIZES = [
    (4, 1024, 2, 16, 1, True), (3, 77, 3, 16, 1, False), (1, 1, 1, 16, 1, True), (2, 63, 5, 5, 2, True),
    (2, 65, 4, 17, 1, False), (1, 130, 32, 16, 2, True), (0, 9, 2, 16, 1, True),
]  # fmt: skip
NAMES = ("t", "in_proj", "conv", "conv_bias", "x_proj", "dt_proj", "dt_bias", "A_log", "D", "out_proj")


@pytest.mark.parametrize(("b", "l", "d", "n", "r", "planar"), SIZES)
def test_compiled_mixer_is_as_exact_as_plain_torch(b, l, d, n, r, planar):
    got, plain, exact = [], [], []
    for draw in range(3):
        torch.manual_seed(draw)
        arguments = inputs(b, l, d, n, r, planar)
        with torch.no_grad():
            with backend.using("cpu"):
                got.append(mamba_mixer(*arguments))
            with backend.using("reference"):
                plain.append(reference.mamba_mixer(*arguments))
                exact.append(reference.mamba_mixer(*(t.double() for t in arguments)))
    assert_as_exact(got, plain, exact)


def gradients(operator, arguments, by_y, dtype=torch.float32):
    """y and the gradient of every argument, computed in `dtype`."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in arguments]
    y = operator(*leaves)
    y.backward(by_y.to(dtype))
    return {"y": y.detach()} | {name: t.grad.clone() for name, t in zip(NAMES, leaves)}


@pytest.mark.parametrize(("b", "l", "d", "n", "r", "planar"), SIZES)
def test_compiled_gradients_are_as_exact_as_plain_torch(b, l, d, n, r, planar):
    got, plain, exact = [], [], []
    for draw in range(6):
        torch.manual_seed(draw)
        arguments, by_y = inputs(b, l, d, n, r, planar), torch.randn(b, d, l).transpose(1, 2)
        with backend.using("cpu"):
            got.append(gradients(mamba_mixer, arguments, by_y))
        with backend.using("reference"):
            plain.append(gradients(reference.mamba_mixer, arguments, by_y))
            exact.append(gradients(reference.mamba_mixer, arguments, by_y, torch.float64))
    for name in exact[0]:
        assert_as_exact(*([one[name] for one in ones] for ones in (got, plain, exact)), name=name)


def test_a_spoilt_gradient_is_noticed():
    torch.manual_seed(0)
    arguments, by_y = inputs(1, 90, 2), torch.randn(1, 90, 2)
    with backend.using("reference"):
        plain = gradients(reference.mamba_mixer, arguments, by_y)["x_proj"]
        exact = gradients(reference.mamba_mixer, arguments, by_y, torch.float64)["x_proj"]
    spoilt = plain.clone()
    spoilt[3, 1] += 1e-4 * exact.abs().max()
    with pytest.raises(AssertionError, match="max error"):
        assert_as_exact([spoilt], [plain], [exact])


def test_threads_change_no_bit_of_a_gradient():
    torch.manual_seed(0)
    arguments, by_y = inputs(5, 200, 3), torch.randn(5, 200, 3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            with backend.using("cpu"):
                results.append(gradients(mamba_mixer, arguments, by_y))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(other[name], t) for name, t in results[0].items())


@pytest.mark.parametrize("planar", [True, False])
def test_more_threads_than_rows_change_no_bit(planar):
    torch.manual_seed(1)
    arguments, before, results = inputs(2, 150, 3, planar=planar), torch.get_num_threads(), []
    try:
        for threads in (1, 3, 4, 16):
            torch.set_num_threads(threads)
            with torch.no_grad(), backend.using("cpu"):
                results.append(mamba_mixer(*arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, results[0]) for other in results[1:])


def test_only_what_wants_a_gradient_gets_one():
    arguments = inputs(1, 20, 2)
    arguments[3].requires_grad_()
    with backend.using("cpu"):
        mamba_mixer(*arguments).sum().backward()
    assert [t.grad is not None for t in arguments] == [i == 3 for i in range(len(arguments))]


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("planar", [True, False])
def test_each_group_is_mixed_by_itself(name, planar):
    t, *weights = inputs(3, 50, 6, planar=planar)
    weights = inputs(1, 1, 2)[1:]
    with torch.no_grad(), backend.using(name):
        together = mamba_mixer(t, *weights, groups=3)
        alone = [mamba_mixer(part, *weights) for part in t.chunk(3, 2)]
    torch.testing.assert_close(together, torch.cat(alone, 2), rtol=1e-5, atol=1e-6)


def test_bfloat16_tokens_and_float32_weights():
    t, *weights = inputs(1, 20, 2)
    got = mamba_mixer(t.bfloat16(), *weights)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, reference.mamba_mixer(t.bfloat16().float(), *weights).bfloat16())


def test_wrong_groups_are_named():
    with pytest.raises(ShapeError, match="3 groups"):
        mamba_mixer(*inputs(1, 5, 2), groups=3)


def test_wrong_shapes_are_named():
    arguments = inputs(1, 5, 2)
    with pytest.raises(ShapeError, match=r"conv_bias is \(3,\)"):
        mamba_mixer(*arguments[:3], torch.zeros(3), *arguments[4:])
