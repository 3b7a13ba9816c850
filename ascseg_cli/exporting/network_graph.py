"""The network as an ONNX graph, from the tensors of a weights file: the same operations as `network/`, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ascseg_cli.exporting import layers
from ascseg_cli.exporting.graph import Graph
from ascseg_cli.exporting.layers import Affine, Kernel, Tensors, affine, conv, gated, gelu, kernel, relu, sigmoid
from ascseg_cli.exporting.scan import selective_scan

GROUPS = 4
DILATIONS = (1, 2, 3, 4, 1, 3, 1, 3)


def probability(g: Graph, x: str, t: Tensors, channels: Sequence[int]) -> str:
    """x (b, 3, h, w), h and w multiples of 16 -> the first head's probability (b, 1, h, w) float32."""
    encoded = []
    for i in range(4):
        with g.part(f"eb{i + 1}"):
            x = _encoder_block(g, layers.halve(g, x) if i else x, t.under(f"encoder.eb{i + 1}"), channels[i])
        encoded.append(x)
    with g.part("cnsd4"):
        d = _noise_suppression(g, x, t.under("decoder.cnsd.3"))
    for i in (2, 1, 0):
        with g.part(f"fac{i + 1}"):
            d = _aligned(g, d, encoded[i], t.under(f"decoder.fac.{i}"))
        with g.part(f"cnsd{i + 1}"):
            d = _noise_suppression(g, d, t.under(f"decoder.cnsd.{i}"))
    logit = conv(g, d, kernel(t, "final.ph1.pro.0"), "head")
    return sigmoid(g, logit if g.precision == "float32" else g.cast(logit, "float32"))


def _encoder_block(g: Graph, x: str, t: Tensors, c: int) -> str:
    """f = IPCB(x), e = PMB(f) + DCB(f)."""
    f = x
    for i in (0, 3, 6):
        f = relu(g, conv(g, f, kernel(t, f"ipc.{i}", f"ipc.{i + 1}"), f"ipc{i}"))
    with g.part("pm"):
        m = _parallel_mamba(g, f, t.under("pm"), c)
    with g.part("dc"):
        return g.op("Add", m, _deformable_block(g, f, t.under("dc")))


def _parallel_mamba(g: Graph, t_in: str, t: Tensors, c: int) -> str:
    """PMB. The factors of each layer norm go into the linear map behind it, where there is one."""
    norm = Affine(t["norm.weight"], t["norm.bias"])
    u = layers.scaled(g, layers.standardised(g, t_in), norm, "norm")
    v = g.op("Add", _mamba_groups(g, u, t.under("mamba"), c), u)
    proj = Kernel(t["proj.weight"][:, :, None, None], t["proj.bias"]).after(norm)
    y = g.op("Add", conv(g, layers.standardised(g, v), proj, "proj"), t_in)
    y = conv(g, layers.standardised(g, y), kernel(t, "pro1").after(norm), "pro1")
    return conv(g, gelu(g, conv(g, y, kernel(t, "dwconv"), "dwconv")), kernel(t, "pro2"), "pro2")


def _mamba_groups(g: Graph, u: str, t: Tensors, c: int) -> str:
    """u (b, c, h, w) -> (b, c, h, w): one Mamba on each of four groups of channels."""
    d = c // GROUPS
    rows = g.op("Reshape", u, _row_shape(g, u, d))  # (4b, d, l)
    if g.precision == "float32":
        return g.op("Reshape", _mamba(g, rows, t), g.op("Shape", u))
    mixed = _mamba(g, g.cast(rows, "float32"), t)
    return g.op("Reshape", g.cast(mixed, g.precision), g.op("Shape", u))


def _row_shape(g: Graph, u: str, d: int) -> str:
    """(4b, d, l) of u (b, 4d, h, w)."""
    b = g.op("Shape", u, start=0, end=1)
    return g.op("Concat", g.op("Mul", b, g.whole(GROUPS)), g.whole(d, -1), axis=0)


def _mamba(g: Graph, t_in: str, t: Tensors) -> str:
    """t (rows, d, l) -> (rows, d, l), float32 in any precision. Source: Gu and Dao 2023, section 3."""
    e, n = t["A_log"].shape
    rank = t["dt_proj.weight"].shape[1]
    both = g.op("MatMul", g.exact("in_proj", t["in_proj.weight"]), t_in)  # (rows, 2e, l)
    x, z = g.split("Split", both, outputs=2, axis=1, num_outputs=2)
    taps, bias = (g.exact(f"conv1d.{name}", t[f"conv1d.{name}"]) for name in ("weight", "bias"))
    x = _silu(g, g.op("Conv", x, taps, bias, kernel_shape=[4], pads=[3, 0], group=e))  # causal
    x_proj = t["x_proj.weight"]
    delta = g.op("MatMul", g.exact("delta", t["dt_proj.weight"] @ x_proj[:rank]), x)  # (rows, e, l)
    delta = g.op("Softplus", g.op("Add", delta, g.exact("dt_bias", t["dt_proj.bias"][:, None])))
    y = selective_scan(g, x, delta, -np.exp(t["A_log"]), x_proj[rank : rank + n], x_proj[rank + n :])
    y = g.op("Add", y, g.op("Mul", x, g.exact("D", t["D"][:, None])))
    return g.op("MatMul", g.exact("out_proj", t["out_proj.weight"]), g.op("Mul", y, _silu(g, z)))


def _silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, sigmoid(g, x))


def _deformable_block(g: Graph, f: str, t: Tensors) -> str:
    """DCB(f) = GELU(BN(conv 1(q))) · f + f, where q samples p = GELU(BN(conv 1(f))) at learnt offsets."""
    p = gelu(g, conv(g, f, kernel(t, "pro.0", "pro.1"), "pro"))
    offset = conv(g, p, kernel(t, "deform.offset.0", "deform.offset.1"), "offset")
    weight = t["deform.deform.weight"]
    q = g.op(
        "DeformConv", p, g.weight("deform.weight", weight), offset,
        kernel_shape=[3, 3], pads=[1] * 4, group=len(weight), offset_group=1,
    )  # fmt: skip
    return gated(g, gelu(g, conv(g, q, kernel(t, "deform.balance.0", "deform.balance.1"), "balance")), f)


def _aligned(g: Graph, d: str, e: str, t: Tensors) -> str:
    """FAC: σ(BN(conv 1(up 2(d)))) · σ(e) + e, the convolution before the resizing: the same, and a quarter of it."""
    gate = sigmoid(g, layers.double(g, conv(g, d, kernel(t, "pro.1", "pro.2"), "pro")))
    return g.op("Add", g.op("Mul", gate, sigmoid(g, e)), e)


def _noise_suppression(g: Graph, x: str, t: Tensors) -> str:
    """CNSD(x) = ReLU(SFM(MSFA(x)) + x)."""
    with g.part("msfa"):
        y = _aggregated(g, x, t.under("msfa"))
    for i, block in enumerate((_denoised, _spatially_attended, _channel_attended)):
        with g.part(("dfb", "sab", "cab")[i]):
            y = block(g, y, t.under(f"sf.attention.{i}"))
    return relu(g, g.op("Add", y, x))


def _aggregated(g: Graph, x: str, t: Tensors) -> str:
    """MSFA: eight branches at three sizes, gathered."""
    large, small = layers.double(g, x), layers.halve(g, x)
    branches = []
    for i, dilation in enumerate(DILATIONS):
        name = f"cfe{i + 1}"
        b, at = t.under(name), x if i < 4 else large if i < 6 else small
        y = relu(g, conv(g, at, kernel(b, "extract.0", "extract.1"), f"{name}.extract", dilation=dilation))
        y = conv(g, y, kernel(b, "integrate.0", "integrate.1"), f"{name}.integrate")
        branches.append(y if i < 4 else layers.halve(g, y) if i < 6 else layers.double(g, y))
    y = g.op("Concat", *branches, axis=1)
    y = relu(g, layers.grouped(g, y, kernel(t, "extract.0", "extract.1"), "extract"))
    return conv(g, y, kernel(t, "extract.3", "extract.4"), "close")


def _denoised(g: Graph, x: str, t: Tensors) -> str:
    """DFB: s = BN(Σ of three depthwise paths of BN(x)); out = s · σ(BN(conv 1(s − avgpool 3(s)))) + s."""
    q = layers.scaled(g, x, affine(t, "norm1"), "norm1")
    last = affine(t, "norm2")
    s = ""
    for i, path in enumerate(("AP1", "AP2", "AP3")):
        y = gelu(g, layers.grouped(g, q, kernel(t, f"{path}.0", f"{path}.1"), f"{path}.wide"))
        share = kernel(t, f"{path}.3", f"{path}.4").then(Affine(last.scale, last.shift * (i == 0)))
        y = conv(g, y, share, f"{path}.close")
        s = g.op("Add", s, y) if s else y
    k = kernel(t, "weight.0", "weight.1").of_filtered(layers.HIGH_PASS)
    return gated(g, sigmoid(g, conv(g, s, k, "gate")), s)


def _spatially_attended(g: Graph, x: str, t: Tensors) -> str:
    """SAB: one gate a pixel from averaged and maximal neighbourhoods."""
    highest = g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    a = conv(g, x, kernel(t, "ave.1", "ave.2").of_filtered(layers.MEAN), "ave")
    m = conv(g, highest, kernel(t, "max.1", "max.2"), "max")
    pooled = [
        conv(g, gelu(g, y), kernel(t, f"{name}.4", f"{name}.5"), f"{name}.close")
        for y, name in ((a, "ave"), (m, "max"))
    ]
    gate = conv(g, g.op("Concat", *pooled, axis=1), kernel(t, "conv.0", "conv.1"), "gate")
    return gated(g, sigmoid(g, gate), x)


def _channel_attended(g: Graph, x: str, t: Tensors) -> str:
    """CAB: one gate a channel from the global maximum and mean."""
    s = g.op("Add", g.op("GlobalMaxPool", x), g.op("GlobalAveragePool", x))
    y = gelu(g, conv(g, s, kernel(t, "conv.0", "conv.1"), "enter"))
    return gated(g, sigmoid(g, conv(g, y, kernel(t, "conv.3", "conv.4"), "gate")), x)
