"""The second half of a deformable convolution block as one kernel: against the modules in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from cases import assert_as_exact
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.deform_block import Folded, deform_block, gpu, reference
from ascseg_cli.kernels.deform_depthwise import reference as sampling
from ascseg_cli.network.deformable import DeformableConvolutionBlock

Images = tuple[Tensor, Tensor, Tensor]


def block(c: int, seed: int = 0) -> DeformableConvolutionBlock:
    """In evaluation, with norms that do something and offsets of about a pixel."""
    torch.manual_seed(seed)
    module = DeformableConvolutionBlock(c).eval()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor, low, high in ((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.05, 0.5)):
            nn.init.uniform_(tensor, low, high)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -1, 1)
    return module


def images(b: int, c: int, h: int, w: int, pitch: int = 0, seed: int = 1) -> Images:
    g = torch.Generator().manual_seed(seed)
    p, f, m = (torch.randn(b, h, w, max(c, pitch), generator=g).permute(0, 3, 1, 2)[:, :c] for _ in range(3))
    return F.gelu(p) if not pitch else p, f, m


def by_modules(module: DeformableConvolutionBlock, p: Tensor, f: Tensor, m: Tensor | None) -> Tensor:
    """The block's definition, one module after another."""
    unit = module.deform
    offset = unit.offset[1](unit.offset[0](p))
    q = sampling.deform_depthwise(p, offset, unit.deform.weight)
    e = F.gelu(unit.balance[1](unit.balance[0](q))) * f + f
    return e if m is None else e + m


def folded(module: DeformableConvolutionBlock) -> tuple[Tensor, ...]:
    unit = module.deform
    return Folded(unit.offset, unit.deform, unit.balance).weights()


@torch.no_grad()
def check(where: str, c: int, sizes: list[tuple[int, int, int]], pitch: int = 0, add: bool = True) -> None:
    module = block(c).to(where)
    exactly = copy.deepcopy(module).double()
    got, plain, exact = [], [], []
    for b, h, w in sizes:
        p, f, m = (t.to(where) for t in images(b, c, h, w, pitch))
        added = m if add else None
        got.append(gpu.deform_block(p, f, added, *folded(module)))
        plain.append(by_modules(module, p, f, added))
        exact.append(by_modules(exactly, p.double(), f.double(), m.double() if add else None))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in got if y.numel())
    whole = [i for i, e in enumerate(exact) if e.numel()]
    assert_as_exact(*([ts[i] for i in whole] for ts in (got, plain, exact)))


SIZES = [(1, 21, 19), (2, 1, 5), (1, 6, 1), (0, 4, 4), (2, 9, 33)]


@pytest.mark.parametrize("cut", gpu.CUTS, ids=lambda cut: f"{cut.h}x{cut.w}")
@pytest.mark.parametrize("c", [8, 24])
def test_every_tile_is_as_exact_as_the_modules(where, monkeypatch, c, cut):
    monkeypatch.setattr(gpu, "cut_for", lambda *size: cut)
    check(where, c, SIZES)


@pytest.mark.parametrize("c", [4, 16, 20, 32, 72])
def test_other_channels(where, c):
    check(where, c, [(1, 7, 10), (2, 5, 4)])


def test_without_an_image_to_add_and_with_pixels_far_apart(where):
    check(where, 8, [(1, 7, 10), (2, 5, 4)], add=False)
    check(where, 8, [(2, 5, 4)], pitch=12)
    check(where, 8, [(2, 5, 4)], pitch=11)


@torch.no_grad()
def test_bfloat16_is_rounded_once(where):
    module = block(8).to(where)
    p, f, m = (t.to(where, torch.bfloat16) for t in images(2, 8, 13, 18))
    got = gpu.deform_block(p, f, m, *folded(module))
    exact = by_modules(copy.deepcopy(module).double(), p.double(), f.double(), m.double())
    assert got.dtype == torch.bfloat16
    assert ((got.double() - exact).abs() <= 2**-8 * exact.abs() * (1 + 1e-3) + 1e-5).all()  # half of a last place
    p[1, 3, 5, 5] = torch.nan
    assert gpu.deform_block(p, f, m, *folded(module))[1, :, 5, 5].isnan().all()


@torch.no_grad()
def test_the_reference_is_the_modules():
    module = block(12).double()
    p, f, m = (t.double() for t in images(2, 12, 9, 7))
    weights = [t.double() for t in folded(module)]
    with backend.using("reference"):
        got = reference.deform_block(p, f, m, *weights)
    torch.testing.assert_close(got, by_modules(module, p, f, m), rtol=1e-5, atol=1e-5)  # folded in float32


def test_the_largest_tile_that_fits_and_keeps_a_gpu_at_work():
    for b, c, side, tile in ((1, 8, 256, 16), (1, 16, 128, 8), (1, 24, 64, 4), (1, 32, 32, 2), (32, 32, 32, 16)):
        assert gpu.cut_for(b, c, side, side).h == tile
    assert all(gpu.cut_for(32, c, 256, 256).shared(c) <= 64 * 1024 for c in (8, 16, 24, 32, 48, 64, 96, 128))


@torch.no_grad()
def test_changed_weights_count_and_stay_where_they_were():
    module = block(8)
    unit = module.deform
    kept = Folded(unit.offset, unit.deform, unit.balance)
    before = kept.weights()
    values = [t.clone() for t in before]
    assert kept.weights() is before
    unit.offset[1].running_var.mul_(2)
    unit.deform.weight.add_(1)
    after = kept.weights()
    assert [t.data_ptr() for t in after] == [t.data_ptr() for t in before]
    assert [torch.equal(t, v) for t, v in zip(after, values)] == [False, False, False, True, True]
    assert all(torch.equal(t, v) for t, v in zip(after, folded(module)))
    assert copy.copy(kept).__dict__["_folded"] == ()


@pytest.fixture
def fused(where: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The network takes the fused kernel, and nothing else that is compiled; nothing is rounded to TF32."""
    if where == "cpu":
        chosen = {"deform_block": "gpu"}
        by_name = lambda operator, x, half=False: chosen.get(operator, "reference")  # noqa: E731
        monkeypatch.setattr(backend, "for_operator", by_name)
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield where


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    right = gpu.deform_block
    monkeypatch.setattr(gpu, "deform_block", lambda *given: calls.append(1) or right(*given))
    return calls


def test_the_network_takes_it_in_evaluation_without_gradients(fused, monkeypatch):
    calls, module = counted(monkeypatch), block(8).to(fused)
    _, f, m = (t.to(fused) for t in images(2, 8, 6, 10))
    with torch.no_grad():
        y = module.added_to(m, f)
        assert len(calls) == 1
        torch.testing.assert_close(y, m + module(f), rtol=1e-5, atol=1e-5)
    module.added_to(m, f)
    with torch.no_grad():
        module.train().added_to(m, f)
    assert len(calls) == 1


def test_observers_see_every_module(fused, monkeypatch):
    calls, module = counted(monkeypatch), block(8).to(fused)
    _, f, m = (t.to(fused) for t in images(1, 8, 6, 10))
    seen: list[Tensor] = []
    watched = [module, module.deform, module.deform.deform]
    for one in watched:
        handle = one.register_forward_hook(lambda module, given, y: seen.append(y))
        with torch.no_grad():
            module.added_to(m, f)
        handle.remove()
    assert len(seen) == len(watched)
    assert not calls
    with torch.no_grad():
        module.added_to(m, f)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("place", "shape", "name"),
    [
        (1, (1, 8, 4, 3), "f"),
        (2, (2, 8, 4, 4), "m"),
        (3, (18, 4, 3, 3), "offset_weight"),
        (7, (4,), "balance_bias"),
    ],
)
def test_wrong_shapes_are_named(place, shape, name):
    arguments = [*images(1, 8, 4, 4), *(t.detach() for t in folded(block(8)))]
    arguments[place] = torch.zeros(shape)
    with pytest.raises(ShapeError, match=rf"{name} is \({', '.join(map(str, shape))},?\)"):
        deform_block(*arguments)


def test_what_the_kernel_cannot_take_is_refused():
    weights = folded(block(8))
    doubles = [t.double() for t in images(1, 8, 4, 4)]
    with torch.no_grad(), pytest.raises(ShapeError, match="takes float32 or bfloat16 images"):
        gpu.deform_block(*doubles, *weights)
    with torch.no_grad(), pytest.raises(ShapeError, match="multiples of 4"):
        gpu.deform_block(*images(1, 6, 4, 4), *folded(block(6)))
