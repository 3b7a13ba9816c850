"""The network as it only runs, in terms of a few operations that every format has: what `network/` computes.

Batch norms are folded into convolutions, 3×3 means into those behind them, and what follows resizing and is linear
comes before it where that is less work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from ascseg_cli.graphs.folding import HIGH_PASS, MEAN, Affine, Kernel, Tensors

GROUPS = 4
DILATIONS = (1, 2, 3, 4, 1, 3, 1, 3)

V = TypeVar("V")


class Operations(Protocol[V]):
    """What a format must offer; V is what stands for a value in it. Names say which weights they are.

    Maps are (b, c, h, w). Rows are (4b, d, l): the tokens of each of four groups of channels, in float32.
    """

    def conv(self, x: V, k: Kernel, name: str, *, groups: int = 1, dilation: int = 1) -> V:
        """Stride 1, size kept."""

    def scaled(self, x: V, norm: Affine, name: str) -> V:
        """x · scale + shift, channel by channel."""

    def standardised(self, x: V) -> V:
        """Each pixel's channels with mean 0 and variance 1: a layer norm without its factors."""

    def add(self, a: V, b: V) -> V: ...

    def multiply(self, a: V, b: V) -> V: ...

    def relu(self, x: V) -> V: ...

    def gelu(self, x: V) -> V: ...

    def sigmoid(self, x: V) -> V: ...

    def softplus(self, x: V) -> V: ...

    def double(self, x: V) -> V:
        """Twice the size, bilinear with align_corners=True."""

    def halve(self, x: V) -> V:
        """The largest of each two by two pixels."""

    def highest(self, x: V) -> V:
        """The largest of the 3×3 pixels around each."""

    def overall(self, x: V) -> V:
        """(b, c, 1, 1): each channel's maximum plus its mean."""

    def joined(self, xs: Sequence[V]) -> V:
        """One after another along the channels."""

    def deformed(self, x: V, offset: V, weight: np.ndarray, name: str) -> V:
        """The depthwise deformable convolution of `kernels.deform_depthwise`."""

    def to_rows(self, x: V, d: int) -> V:
        """A map of 4d channels as rows."""

    def to_map(self, rows: V, like: V) -> V:
        """Rows as a map of that shape."""

    def linear(self, rows: V, weight: np.ndarray, name: str) -> V:
        """weight (out, in) on each token."""

    def halves(self, rows: V) -> tuple[V, V]:
        """The first and the second half of the channels."""

    def causal(self, rows: V, weight: np.ndarray, bias: np.ndarray, name: str) -> V:
        """Depthwise over the token and the three before it; weight (e, 1, 4)."""

    def along(self, rows: V, factor: np.ndarray, summand: np.ndarray, name: str) -> V:
        """rows · factor + summand, channel by channel."""

    def selective_scan(self, x: V, delta: V, A: np.ndarray, B: np.ndarray, C: np.ndarray, name: str) -> V:
        """y_k = C_k · s_k with s_k = exp(Δ_k A) · s_(k−1) + Δ_k B_k x_k, s_0 = 0, B_k = B x_k, C_k = C x_k.

        x, delta  rows of e channels; A (e, n); B, C (n, e)
        """


def logit(o: Operations[V], x: V, t: Tensors, channels: Sequence[int]) -> V:
    """x (b, 3, h, w), h and w multiples of 16 -> the first head's logit (b, 1, h, w)."""
    encoded = []
    for i, c in enumerate(channels):
        x = _encoder_block(o, o.halve(x) if i else x, t.under(f"encoder.eb{i + 1}"), c)
        encoded.append(x)
    d = _noise_suppression(o, x, t.under("decoder.cnsd.3"))
    for i in (2, 1, 0):
        d = _noise_suppression(
            o, _aligned(o, d, encoded[i], t.under(f"decoder.fac.{i}")), t.under(f"decoder.cnsd.{i}")
        )
    return _conv(o, d, t, "final.ph1.pro.0")


def _conv(
    o: Operations[V], x: V, t: Tensors, name: str, norm: str = "", *, groups: int = 1, dilation: int = 1
) -> V:
    return o.conv(x, t.kernel(name, norm), t.prefix + name, groups=groups, dilation=dilation)


def _gated(o: Operations[V], gate: V, x: V) -> V:
    """gate · x + x."""
    return o.add(o.multiply(gate, x), x)


def _silu(o: Operations[V], x: V) -> V:
    return o.multiply(x, o.sigmoid(x))


def _encoder_block(o: Operations[V], x: V, t: Tensors, c: int) -> V:
    """f = IPCB(x), e = PMB(f) + DCB(f)."""
    f = x
    for i in (0, 3, 6):
        f = o.relu(_conv(o, f, t, f"ipc.{i}", f"ipc.{i + 1}"))
    return o.add(_parallel_mamba(o, f, t.under("pm"), c), _deformable_block(o, f, t.under("dc"), c))


def _parallel_mamba(o: Operations[V], f: V, t: Tensors, c: int) -> V:
    """PMB. The factors of each layer norm go into the linear map behind it, where there is one."""
    norm = Affine(t["norm.weight"], t["norm.bias"])
    u = o.scaled(o.standardised(f), norm, t.prefix + "norm")
    mixed = o.to_map(_mamba(o, o.to_rows(u, c // GROUPS), t.under("mamba")), u)
    proj = Kernel(t["proj.weight"][:, :, None, None], t["proj.bias"]).after(norm)
    y = o.conv(o.standardised(o.add(mixed, u)), proj, t.prefix + "proj")
    y = o.conv(o.standardised(o.add(y, f)), t.kernel("pro1").after(norm), t.prefix + "pro1")
    return _conv(o, o.gelu(_conv(o, y, t, "dwconv", groups=c)), t, "pro2")


def _mamba(o: Operations[V], rows: V, t: Tensors) -> V:
    """rows (4b, d, l) -> the same shape. Source: Gu and Dao 2023, section 3. Δ has one weight for its two maps."""
    e, n = t["A_log"].shape
    rank, x_proj, at = t["dt_proj.weight"].shape[1], t["x_proj.weight"], t.prefix
    x, z = o.halves(o.linear(rows, t["in_proj.weight"], at + "in_proj"))
    x = _silu(o, o.causal(x, t["conv1d.weight"], t["conv1d.bias"], at + "conv1d"))
    delta = o.linear(x, t["dt_proj.weight"] @ x_proj[:rank], at + "delta")
    delta = o.softplus(o.along(delta, np.ones(e), t["dt_proj.bias"], at + "dt_bias"))
    y = o.selective_scan(x, delta, -np.exp(t["A_log"]), x_proj[rank : rank + n], x_proj[rank + n :], at + "scan")
    y = o.add(y, o.along(x, t["D"], np.zeros(e), at + "D"))
    return o.linear(o.multiply(y, _silu(o, z)), t["out_proj.weight"], at + "out_proj")


def _deformable_block(o: Operations[V], f: V, t: Tensors, c: int) -> V:
    """DCB(f) = GELU(BN(conv 1(q))) · f + f, where q samples p = GELU(BN(conv 1(f))) at learnt offsets."""
    p = o.gelu(_conv(o, f, t, "pro.0", "pro.1"))
    offset = _conv(o, p, t, "deform.offset.0", "deform.offset.1")
    q = o.deformed(p, offset, t["deform.deform.weight"], t.prefix + "deform.deform.weight")
    return _gated(o, o.gelu(_conv(o, q, t, "deform.balance.0", "deform.balance.1")), f)


def _aligned(o: Operations[V], d: V, e: V, t: Tensors) -> V:
    """FAC: σ(BN(conv 1(up 2(d)))) · σ(e) + e; the convolution comes first, on a quarter of the pixels."""
    gate = o.sigmoid(o.double(_conv(o, d, t, "pro.1", "pro.2")))
    return o.add(o.multiply(gate, o.sigmoid(e)), e)


def _noise_suppression(o: Operations[V], x: V, t: Tensors) -> V:
    """CNSD(x) = ReLU(SFM(MSFA(x)) + x)."""
    y = _denoised(o, _aggregated(o, x, t.under("msfa")), t.under("sf.attention.0"))
    y = _spatially_attended(o, y, t.under("sf.attention.1"))
    return o.relu(o.add(_channel_attended(o, y, t.under("sf.attention.2.conv")), x))


def _aggregated(o: Operations[V], x: V, t: Tensors) -> V:
    """MSFA: eight branches at three sizes, gathered."""
    large, small = o.double(x), o.halve(x)
    branches = []
    for i, dilation in enumerate(DILATIONS):
        b = t.under(f"cfe{i + 1}")
        at = x if i < 4 else large if i < 6 else small
        y = o.relu(_conv(o, at, b, "extract.0", "extract.1", dilation=dilation))
        y = _conv(o, y, b, "integrate.0", "integrate.1")
        branches.append(y if i < 4 else o.halve(y) if i < 6 else o.double(y))
    groups = len(t["extract.0.bias"])
    y = o.relu(_conv(o, o.joined(branches), t, "extract.0", "extract.1", groups=groups))
    return _conv(o, y, t, "extract.3", "extract.4")


def _denoised(o: Operations[V], x: V, t: Tensors) -> V:
    """DFB: s = BN(Σ of three depthwise paths of BN(x)); out = s · σ(BN(conv 1(s − avgpool 3(s)))) + s."""
    norm, last = t.affine("norm1"), t.affine("norm2")
    q = o.scaled(x, norm, t.prefix + "norm1")
    paths = []
    for i, path in enumerate(("AP1", "AP2", "AP3")):
        y = o.gelu(_conv(o, q, t, f"{path}.0", f"{path}.1", groups=len(norm.scale)))
        share = Affine(last.scale, last.shift if i == 0 else np.zeros_like(last.shift))
        paths.append(o.conv(y, t.kernel(f"{path}.3", f"{path}.4").then(share), f"{t.prefix}{path}.3"))
    s = o.add(o.add(paths[0], paths[1]), paths[2])
    gate = o.conv(s, t.kernel("weight.0", "weight.1").of_filtered(HIGH_PASS), t.prefix + "weight.0")
    return _gated(o, o.sigmoid(gate), s)


def _spatially_attended(o: Operations[V], x: V, t: Tensors) -> V:
    """SAB: one gate a pixel from averaged and maximal neighbourhoods."""
    average = o.conv(x, t.kernel("ave.1", "ave.2").of_filtered(MEAN), t.prefix + "ave.1")
    highest = _conv(o, o.highest(x), t, "max.1", "max.2")
    pooled = [_conv(o, o.gelu(y), t, f"{name}.4", f"{name}.5") for y, name in ((average, "ave"), (highest, "max"))]
    gate = _conv(o, o.joined(pooled), t, "conv.0", "conv.1")
    return _gated(o, o.sigmoid(gate), x)


def _channel_attended(o: Operations[V], x: V, t: Tensors) -> V:
    """CAB: one gate a channel from the global maximum and mean."""
    y = o.gelu(_conv(o, o.overall(x), t, "0", "1"))
    return _gated(o, o.sigmoid(_conv(o, y, t, "3", "4")), x)
