"""The GPU's passes on the chains of `test_chain`: on an emulated machine, and on a GPU where there is one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import pytest
import torch
from cases import assert_as_exact
from emulator.emulate import COMPILER, emulated
from test_chain import CHAINS, conv, double, norm, operands
from torch import Tensor, nn

from ascseg_cli.kernels.chain import Add, Boost, Chain, Gate, reference
from ascseg_cli.kernels.chain.passes import run as passes

SIZES = [(2, 6, 10), (1, 9, 34), (0, 4, 4)]
WIDE = {
    "wide": (36, lambda: [conv(36, 40, 3), norm(40), nn.GELU(), conv(40, 33, 1), nn.LayerNorm(33)], 0),
    "wide other": (1, lambda: [conv(1, 3, 7), nn.Sigmoid(), conv(3, 1, 1), Gate()], 24),
    "wide groups": (48, lambda: [conv(48, 12, 3, 1, 12), norm(12), nn.ReLU(), conv(12, 20, 1), norm(20)], 0),
    "no fours": (7, lambda: [conv(7, 7, 5, 1, 7), nn.LayerNorm(7), conv(7, 9, 1), nn.ReLU(), norm(9)], 0),
    "one to many channels": (2, lambda: [conv(2, 1, 7), norm(1), nn.Sigmoid(), Gate()], 12),
    "a channel each": (12, lambda: [Boost(), nn.ReLU()], -12),
}
TENSOR = {
    "sixteens and a half": (24, lambda: [conv(24, 12, 3, 2), norm(12), nn.ReLU(), conv(12, 20, 1)], 0),
    "49 taps": (8, lambda: [conv(8, 18, 7), norm(18)], 0),
    "many eights": (8, lambda: [conv(8, 44, 3), nn.GELU(), conv(44, 3, 1)], 0),
    "doubled": (16, lambda: [double(), conv(16, 8, 3, 3), nn.ReLU(), nn.MaxPool2d(2)], 0),
    "halved": (16, lambda: [nn.MaxPool2d(2), conv(16, 8, 3), nn.ReLU()], 0),
    "layer norms and a sum": (24, lambda: [nn.LayerNorm(24), conv(24, 24, 1), Add(), nn.LayerNorm(24)], 24),
    "a channel each": WIDE["a channel each"],
    "one channel in the end": (12, lambda: [conv(12, 1, 1)], 0),
    "a channel by itself": (12, lambda: [conv(12, 12, 7, 1, 12), nn.GELU(), conv(12, 12, 1), norm(12)], 0),
    "four to one": (32, lambda: [conv(32, 8, 3, 1, 8), norm(8), nn.ReLU(), conv(8, 8, 1)], 0),
    "maximum": (20, lambda: [nn.MaxPool2d(3, 1, 1), conv(20, 8, 1), nn.GELU(), conv(8, 1, 1)], 0),
    "one gate for many channels": (2, lambda: [conv(2, 1, 7), norm(1), nn.Sigmoid(), Gate()], 12),
    "one gate of few taps": (2, lambda: [conv(2, 1, 3), nn.Sigmoid(), Gate(), nn.ReLU()], 32),
    "a gate in a channel each": (16, lambda: [double(), conv(16, 8, 1), nn.Sigmoid(), Boost()], -8),
}


@pytest.fixture(params=["emulated", "cuda"])
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device of the tensors; kernels run there."""
    with contextlib.ExitStack() as stack:
        if request.param == "emulated":
            if COMPILER is None:
                pytest.skip("g++ isn't installed")
            stack.enter_context(emulated())
        elif not torch.cuda.is_available():
            pytest.skip("no CUDA GPU was found")
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.backends.cudnn.flags(allow_tf32=False))
        yield "cpu" if request.param == "emulated" else "cuda"


def on(device: str, *steps: nn.Module) -> Chain:
    return Chain(*(step.to(device) for step in steps))


def copied(steps: Chain, dtype: torch.dtype) -> Chain:
    return Chain(*(copy.deepcopy(step).to(dtype) for step in steps))


def judge(
    machine: str, chains: list[Chain], draws: list[tuple[Tensor, Tensor | None]], dtype: torch.dtype
) -> None:
    """The passes err at most twice as much as plain torch, which keeps every step's result in `dtype`."""
    stored, doubled = ([copied(steps, kind) for steps in chains] for kind in (dtype, torch.float64))
    got, plain, exact = [], [], []
    for drawn in draws:
        x, other = (None if t is None else t.to(dtype).to(machine) for t in drawn)
        if not x.numel():
            assert run(passes, x, chains, other).numel() == 0
            continue
        got.append(run(passes, x, chains, other))
        plain.append(run(reference, x, stored, other))
        exact.append(run(reference, x.double(), doubled, None if other is None else other.double()))
        assert got[-1].permute(0, 2, 3, 1).is_contiguous()
    assert_as_exact(got, plain, exact)


def run(module, x: Tensor, chains: list[Chain], other: Tensor | None) -> Tensor:
    return module.chain(x, chains[0], other) if len(chains) == 1 else module.side_by_side(x, chains)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in (CHAINS | WIDE)),
        *(
            (name, torch.bfloat16)
            for name in ("7 × 7", "layer norm", "high pass", "boost", "no fours", "doubled twice")
        ),
        *((name, torch.bfloat16) for name in TENSOR),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_chains_are_as_exact_as_plain_torch(machine, name, dtype):
    c, make, others = (CHAINS | WIDE | TENSOR)[name]
    torch.manual_seed(0)
    steps = on(machine, *make())
    least = 2 if "halved" in name else 1
    draws = [operands(c, others, b, max(h, least), w) for b, h, w in SIZES]
    judge(machine, [steps], draws, dtype)


def branch(c: int, dilation: int) -> list[nn.Module]:
    return [conv(c, c // 2, 3, dilation), norm(c // 2), nn.ReLU(), conv(c // 2, c // 2, 1), norm(c // 2)]


def scales(c: int) -> list[list[nn.Module]]:
    same = [branch(c, d) for d in (1, 2, 3, 4)]
    doubled = [[double(), *branch(c, d), nn.MaxPool2d(2)] for d in (1, 3)]
    return [*same, *doubled, *([nn.MaxPool2d(2), *branch(c, d), double()] for d in (1, 3))]


def pools(c: int) -> list[list[nn.Module]]:
    ends = [[conv(c, c, 1), norm(c), nn.GELU(), conv(c, 1, 1), norm(1)] for _ in range(2)]
    return [[nn.AvgPool2d(3, 1, 1), *ends[0]], [nn.MaxPool2d(3, 1, 1), *ends[1]]]


SIDE_BY_SIDE = {
    "scales of 8": scales,
    "scales of 12": scales,
    "pools of 24": pools,
    "pools of 3": pools,
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in SIDE_BY_SIDE),
        *((name, torch.bfloat16) for name in ("scales of 8", "pools of 24")),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_side_by_side_is_as_exact_as_plain_torch(machine, name, dtype):
    torch.manual_seed(1)
    c = int(name.split()[-1])
    chains = [on(machine, *steps) for steps in SIDE_BY_SIDE[name](c)]
    draws = [(torch.randn(b, c, h, w), None) for b, h, w in [(2, 6, 12), (1, 10, 18), (0, 4, 4)]]
    judge(machine, chains, draws, dtype)


@pytest.mark.parametrize(
    ("c", "dtype"),
    [*((c, torch.float32) for c in (8, 12, 20)), *((c, torch.bfloat16) for c in (8, 12))],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_chains_in_turn_are_as_exact_as_plain_torch(machine, c, dtype):
    torch.manual_seed(5)
    enter = on(machine, norm(c))
    paths = [[conv(c, c, k, 1, c), norm(c), nn.GELU(), conv(c, c, 1), norm(c)] for k in (7, 5, 3)]
    chains = [on(machine, *paths[0]), on(machine, *paths[1], Add()), on(machine, *paths[2], Add(), norm(c))]
    stored, doubled = ([copied(steps, kind) for steps in (enter, *chains)] for kind in (dtype, torch.float64))
    got, plain, exact = [], [], []
    for b, h, w in [(2, 6, 10), (1, 9, 34), (3, 1, 5)]:
        x = torch.randn(b, c, h, w, device=machine, dtype=dtype)
        got.append(passes.in_turn(x, enter, chains))
        plain.append(fold(x, stored[0], stored[1:]))
        exact.append(fold(x.double(), doubled[0], doubled[1:]))
    assert_as_exact(got, plain, exact)
    assert passes.in_turn(x[:0], enter, chains).shape == (0, c, 1, 5)


def fold(x: Tensor, enter: Chain, chains: list[Chain]) -> Tensor:
    q, result = reference.chain(x, enter), None
    for steps in chains:
        result = reference.chain(q, steps, result)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("c", "dtype"),
    [(8, torch.float32), (12, torch.float32), (8, torch.bfloat16), (16, torch.bfloat16)],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_gathered_is_as_exact_as_plain_torch(machine, c, dtype):
    """Branches' results are parts of four channels, of so many that they can't be moved at once, or of eight."""
    torch.manual_seed(6)
    chains = [on(machine, *steps) for steps in scales(c)]
    then = on(machine, conv(4 * c, c, 3, 1, c), norm(c), nn.ReLU(), conv(c, c, 1), norm(c))
    stored, doubled = ([copied(steps, kind) for steps in (*chains, then)] for kind in (dtype, torch.float64))
    got, plain, exact = [], [], []
    for b, h, w in [(2, 6, 12), (1, 10, 34)]:
        x = torch.randn(b, c, h, w, device=machine, dtype=dtype)
        got.append(passes.gathered(x, chains, then))
        plain.append(reference.chain(reference.side_by_side(x, stored[:-1]), stored[-1]))
        exact.append(reference.chain(reference.side_by_side(x.double(), doubled[:-1]), doubled[-1]))
    assert_as_exact(got, plain, exact)
    assert passes.gathered(x[:0], chains, then).shape == (0, c, 10, 34)


# ---- float32 as sums of two bfloat16 numbers ---------------------------------------------------------------


def to_pairs(x: Tensor) -> Tensor:
    """float32 to what bfloat16 knows, twice: at most 2⁻¹⁷ of a number is lost."""
    high = x.bfloat16()
    return high.float() + (x - high.float()).bfloat16().float()


@pytest.fixture
def tf32(machine) -> Iterator[None]:
    with torch.backends.cudnn.flags(allow_tf32=True):
        yield


DENSE = [(8, 4, 3, 1), (8, 4, 3, 4), (16, 8, 3, 3), (24, 12, 3, 2), (3, 8, 7, 1), (8, 44, 3, 1), (5, 9, 3, 1)]


@pytest.mark.parametrize(("into", "out", "size", "dilation"), DENSE)
def test_pairs_are_as_exact_as_plain_torch_on_sums_of_two(machine, tf32, into, out, size, dilation):
    torch.manual_seed(7)
    layer = conv(into, out, size, dilation)
    steps = on(machine, layer)
    layer.weight.copy_(to_pairs(layer.weight))
    got, plain, exact = [], [], []
    for b, h, w in SIZES[:2]:
        x = torch.randn(b, into, h, w, device=machine)
        got.append(passes.chain(x, steps))
        with torch.backends.cudnn.flags(allow_tf32=False):
            plain.append(reference.chain(to_pairs(x), steps))
        exact.append(reference.chain(to_pairs(x).double(), Chain(copy.deepcopy(layer).double())))
    # Tensor cores cut where float32's own additions round, so errors don't cancel: of sums of fifty products, one
    # after another, an H100's are 7.5 times as large. A part of a number left out would be 1,000 times as much.
    assert_as_exact(got, plain, exact, slack=12.0 if machine == "cuda" else 2.0)


@pytest.mark.parametrize("name", ["before a pool", "doubled before", "fast activations"])
def test_pairs_err_no_more_than_their_rounding_explains(machine, tf32, name):
    """x and weights move by 2⁻¹⁷ of themselves at most, so a sum of products by 2⁻¹⁶ of that of their sizes."""
    torch.manual_seed(8)
    layer = conv(16, 8, 3, 2)
    ends = {
        "before a pool": [nn.MaxPool2d(2)],
        "doubled before": [],
        "fast activations": [nn.GELU(), nn.Sigmoid()],
    }
    begins = [double()] if name == "doubled before" else []
    steps = on(machine, *begins, layer, *ends[name])
    sizes = copy.deepcopy(layer).double()
    sizes.weight.abs_()
    sizes.bias.zero_()
    x = torch.randn(2, 16, 10, 34, device=machine)
    exact = reference.chain(x.double(), Chain(*(copy.deepcopy(step).double() for step in steps)))
    begun = reference.chain(x.double(), Chain(*begins))
    bound = sizes(begun.abs()) * (2**-16 + 2**-20) + 1e-6
    if name == "before a pool":
        bound = nn.functional.max_pool2d(bound, 2)
    if name == "fast activations":
        bound = bound * 1.2  # the steepest slope of GELU is 1.13, sigmoid's less than 1
    got = passes.chain(x, steps)
    assert ((got.double() - exact).abs() <= bound).all()
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not torch.equal(passes.chain(x, steps), got)


def test_tf32_off_changes_nothing_after_tf32(machine):
    torch.manual_seed(9)
    steps, x = on(machine, *branch(8, 2)), torch.randn(1, 8, 12, 20, device=machine)
    before = passes.chain(x, steps)
    with torch.backends.cudnn.flags(allow_tf32=True):
        rounded = passes.chain(x, steps)
    assert not torch.equal(rounded, before)
    assert torch.equal(passes.chain(x, steps), before)


def test_batch_mates_do_not_change_a_bit(machine):
    torch.manual_seed(2)
    for steps in (
        on(machine, *branch(8, 2)),
        on(machine, conv(3, 8, 7), nn.ReLU(), conv(8, 8, 3), nn.MaxPool2d(2)),
    ):
        x = torch.randn(3, steps[0].in_channels, 12, 20, device=machine)
        together = passes.chain(x, steps)
        assert torch.equal(passes.chain(x[1:2], steps), together[1:2])


def test_a_slice_of_channels_is_read_where_it_lies(machine):
    torch.manual_seed(3)
    steps = on(machine, conv(4, 4, 3))
    wide = torch.randn(2, 6, 7, 12, device=machine).permute(0, 3, 1, 2)
    for first in (4, 3):
        x = wide[:, first : first + 4]
        torch.testing.assert_close(passes.chain(x, steps), reference.chain(x, steps), rtol=1e-5, atol=1e-5)


def test_changed_weights_count(machine):
    torch.manual_seed(4)
    layer, after = conv(4, 4, 3).to(machine), norm(4).to(machine)
    steps, x = Chain(layer, after), torch.randn(1, 4, 8, 8, device=machine)
    passes.chain(x, steps)
    layer.weight.mul_(2)
    after.running_mean.add_(1)
    torch.testing.assert_close(passes.chain(x, steps), reference.chain(x, steps), rtol=1e-5, atol=1e-5)
    layer.weight = nn.Parameter(torch.ones(4, 4, 3, 3, device=machine))
    torch.testing.assert_close(passes.chain(x, steps), reference.chain(x, steps), rtol=1e-5, atol=1e-5)
