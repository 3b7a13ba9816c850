"""The name and shape of every tensor of a weights file, known without torch.

Names are those of the authors' checkpoints. The network's own state dict is tested against this list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ascseg_cli.network.variants import check_channels

STATES = 16
Shape = tuple[int, ...]
_Entries = Iterator[tuple[str, Shape]]


def expected_shapes(channels: Sequence[int]) -> dict[str, Shape]:
    """Every tensor of a network with these four channel counts, by name. Raises ShapeError."""
    counts = check_channels(channels)
    return dict(_network(counts))


def _network(channels: Sequence[int]) -> _Entries:
    for i, c in enumerate(channels):
        before = 3 if i == 0 else channels[i - 1]
        yield from _under(f"encoder.eb{i + 1}", _encoder_block(before, c))
        yield from _under(f"decoder.cnsd.{i}", _cnsd(c))
        yield from _under(f"final.ph{i + 1}.pro.0", _conv(1, c, 1))
        if i < 3:
            pairs = _conv_bn("pro.1", "pro.2", c, channels[i + 1], 1)
            yield from _under(f"decoder.fac.{i}", pairs)


def _under(prefix: str, entries: _Entries) -> _Entries:
    for name, shape in entries:
        yield f"{prefix}.{name}", shape


def _conv(out: int, into: int, k: int) -> _Entries:
    yield "weight", (out, into, k, k)
    yield "bias", (out,)


def _norm(c: int) -> _Entries:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield name, (c,)


def _conv_bn(conv: str, norm: str, out: int, into: int, k: int) -> _Entries:
    yield from _under(conv, _conv(out, into, k))
    yield from _under(norm, _norm(out))


def _encoder_block(before: int, c: int) -> _Entries:
    yield from _conv_bn("ipc.0", "ipc.1", c, before, 7)
    yield from _conv_bn("ipc.3", "ipc.4", c, c, 3)
    yield from _conv_bn("ipc.6", "ipc.7", c, c, 1)
    yield from _under("pm", _parallel_mamba(c))
    yield from _conv_bn("dc.pro.0", "dc.pro.1", c, c, 1)
    yield from _conv_bn("dc.deform.offset.0", "dc.deform.offset.1", 18, c, 3)
    yield "dc.deform.deform.weight", (c, 1, 3, 3)
    yield from _conv_bn("dc.deform.balance.0", "dc.deform.balance.1", c, c, 1)


def _parallel_mamba(c: int) -> _Entries:
    d = c // 4
    e, rank = 2 * d, math.ceil(d / 16)
    yield "norm.weight", (c,)
    yield "norm.bias", (c,)
    yield "proj.weight", (c, c)
    yield "proj.bias", (c,)
    yield from _under("pro1", _conv(c, c, 1))
    yield from _under("dwconv", _conv(c, 1, 7))
    yield from _under("pro2", _conv(c, c, 1))
    yield "mamba.in_proj.weight", (2 * e, d)
    yield "mamba.conv1d.weight", (e, 1, 4)
    yield "mamba.conv1d.bias", (e,)
    yield "mamba.x_proj.weight", (rank + 2 * STATES, e)
    yield "mamba.dt_proj.weight", (e, rank)
    yield "mamba.dt_proj.bias", (e,)
    yield "mamba.A_log", (e, STATES)
    yield "mamba.D", (e,)
    yield "mamba.out_proj.weight", (d, e)


def _cnsd(c: int) -> _Entries:
    for branch in range(1, 9):
        yield from _conv_bn(f"msfa.cfe{branch}.extract.0", f"msfa.cfe{branch}.extract.1", c // 2, c, 3)
        yield from _conv_bn(f"msfa.cfe{branch}.integrate.0", f"msfa.cfe{branch}.integrate.1", c // 2, c // 2, 1)
    yield from _conv_bn("msfa.extract.0", "msfa.extract.1", c, 4, 3)
    yield from _conv_bn("msfa.extract.3", "msfa.extract.4", c, c, 1)
    focus = "sf.attention.0"
    yield from _under(f"{focus}.norm1", _norm(c))
    yield from _under(f"{focus}.norm2", _norm(c))
    for path, k in (("AP1", 7), ("AP2", 5), ("AP3", 3)):
        yield from _conv_bn(f"{focus}.{path}.0", f"{focus}.{path}.1", c, 1, k)
        yield from _conv_bn(f"{focus}.{path}.3", f"{focus}.{path}.4", c, c, 1)
    yield from _conv_bn(f"{focus}.weight.0", f"{focus}.weight.1", c, c, 1)
    spatial = "sf.attention.1"
    for path in ("ave", "max"):
        yield from _conv_bn(f"{spatial}.{path}.1", f"{spatial}.{path}.2", c, c, 1)
        yield from _conv_bn(f"{spatial}.{path}.4", f"{spatial}.{path}.5", 1, c, 1)
    yield from _conv_bn(f"{spatial}.conv.0", f"{spatial}.conv.1", 1, 2, 7)
    channel = "sf.attention.2.conv"
    yield from _conv_bn(f"{channel}.0", f"{channel}.1", c, c, 1)
    yield from _conv_bn(f"{channel}.3", f"{channel}.4", c, c, 1)
