"""Times the compiled CPU kernels against plain torch, side by side, at the tiny network's sizes; prints one table.

    python benchmarks/kernels_cpu.py [--size 256] [--threads 2] [--repeats 7]

Each pair of times is taken in turns, so that a busy machine disturbs both; the table shows medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.deform_depthwise import deform_depthwise
from ascseg_cli.kernels.selective_scan import selective_scan

CHANNELS = (8, 16, 24, 32)
Operator = Callable[..., Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="side of the image, px")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"one image of {arguments.size}×{arguments.size} px, {arguments.threads} threads; milliseconds, medians")
    first_calls()
    print(f"{'':32}{'forward':^24}{'forward + backward':^24}")
    print(f"{'':32}" + 2 * f"{'torch':>8}{'cpu':>8}{'ratio':>8}")
    for stage, channels in enumerate(CHANNELS):
        side = arguments.size >> stage
        report(
            f"scan   4 × {side * side} × {channels // 2}", selective_scan, scan(side, channels), arguments.repeats
        )
    for stage, channels in enumerate(CHANNELS):
        side = arguments.size >> stage
        report(f"deform {channels} × {side} × {side}", deform_depthwise, deform(side, channels), arguments.repeats)


def scan(side: int, channels: int) -> list[Tensor]:
    """What a stage's four groups give the scan: slices of projections, x transposed."""
    b, l, e, n = 4, side * side, channels // 2, 16
    z, x = torch.randn(b, l, 2 * e).chunk(2, -1)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    delta = torch.randn(b, l, e) - 3
    B, C = torch.randn(b, l, 2 * n + 1)[..., 1:].chunk(2, -1)
    A = -torch.arange(1.0, n + 1).repeat(e, 1)
    return [t.requires_grad_() for t in (x, delta, A, B, C, torch.ones(e), z, torch.zeros(e))]


def deform(side: int, channels: int) -> list[Tensor]:
    x, offset = torch.randn(1, channels, side, side), torch.randn(1, 18, side, side)
    return [t.requires_grad_() for t in (x, offset, torch.randn(channels, 1, 3, 3))]


def first_calls() -> None:
    """What the first call costs: compiling, or loading what an earlier run compiled."""
    for name, operator, inputs in (
        ("scan", selective_scan, scan(2, 8)),
        ("deform", deform_depthwise, deform(2, 8)),
    ):
        forward = seconds("cpu", operator, inputs, False)
        backward = seconds("cpu", operator, inputs, True)
        print(f"first call of {name:8} {forward:6.2f} s, with backward {backward:6.2f} s more")


def report(name: str, operator: Operator, inputs: list[Tensor], repeats: int) -> None:
    cells = []
    for backward in (False, True):
        times: dict[str, list[float]] = {"reference": [], "cpu": []}
        for turn in range(repeats + 1):
            for which, taken in times.items():
                spent = seconds(which, operator, inputs, backward)
                if turn:  # the first is to warm up
                    taken.append(1e3 * spent)
        plain, ours = (statistics.median(taken) for taken in times.values())
        cells.append(f"{plain:8.1f}{ours:8.2f}{plain / ours:7.1f}×")
    print(f"{name:32}" + "".join(cells), flush=True)


def seconds(which: str, operator: Operator, inputs: list[Tensor], backward: bool) -> float:
    start = time.perf_counter()
    with backend.using(which), torch.set_grad_enabled(backward):
        y = operator(*inputs)
        if backward:
            torch.autograd.grad(y, inputs, torch.ones_like(y))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
