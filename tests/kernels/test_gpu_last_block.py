"""Sums that a kernel's last block finishes: right, the same bits whoever is last, ready for the next launch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulator.emulate import COMPILER, emulated
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.cuda import kernel, last_block
from ascseg_cli.kernels.cuda.last_block import Rows, scratch

SOURCE = Path(__file__).with_name("last_block_case.cu")
COUNTS = (1, 2, 191, 192, 193, 321)  # in one step, and in two with groups that are full or not


@pytest.fixture(params=["emulated", "cuda"])
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device of the tensors."""
    if request.param == "cuda":
        status = backend.availability("gpu")
        if not status.ok:
            pytest.skip(f"backend gpu: {status.reason}")
        yield "cuda"
        return
    if COMPILER is None:
        pytest.skip("g++ isn't installed")
    with emulated():
        yield "cpu"


def added(values: Tensor, writers: int = 1, threads: int = 32) -> tuple[Tensor, int]:
    """The sums over rows of values (count, n), and how many blocks ended them."""
    count, n = values.shape
    rows = Rows.of(values, count, n, writers)
    rows.at.fill_(math.nan)
    result, ends = values.new_zeros(n), torch.zeros(1, dtype=torch.int32, device=values.device)
    run = kernel(SOURCE, "add_up_rows")
    run((count, writers), threads, values, rows.argument, n, result, ends, shared=scratch(n, threads))
    return result, int(ends)


def drawn(count: int, n: int, where: str = "cpu") -> Tensor:
    g = torch.Generator().manual_seed(100 * count + n)
    return torch.randn(count, n, generator=g, dtype=torch.float64).to(where)


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("n", [1, 6, 32, 70])
@pytest.mark.parametrize("count", COUNTS)
def test_all_rows_are_added_once(where, count, n, writers):
    values = drawn(count, n, where)
    got, ends = added(values, writers)
    exact = [math.fsum(column) for column in values.cpu().T.tolist()]
    assert ends == 1
    torch.testing.assert_close(got.cpu(), torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-13 * count)


@pytest.mark.parametrize("count", [5, 321])
def test_launches_in_a_row_give_the_same_bits(where, count):
    values = drawn(count, 10, where)
    first, _ = added(values, writers=2, threads=64)
    for _ in range(3):
        again, ends = added(values, writers=2, threads=64)
        assert ends == 1
        assert torch.equal(again, first)


def test_tickets_are_zero_again(where):
    added(drawn(321, 4, where))
    for tickets in last_block._by_stream.values():
        assert not tickets.any()


def test_a_spoilt_row_is_seen(where):
    values = drawn(193, 6, where)
    before, _ = added(values)
    values[192, 3] += 1e-9
    after, _ = added(values)
    assert (before != after).tolist() == [False, False, False, True, False, False]


PROGRAM = """
import sys, torch
from emulator.emulate import emulated
from test_gpu_last_block import added, drawn
with emulated():
    torch.save([added(drawn(count, 10), 2, 64)[0] for count in (5, 193, 321)], sys.argv[1])
"""


@pytest.mark.skipif(COMPILER is None, reason="g++ isn't installed")
def test_whichever_block_is_last_changes_no_bit(tmp_path):
    here = str(Path(__file__).resolve().parent)
    env = {k: v for k, v in os.environ.items() if k != "EMULATED_ORDER"}
    env["PYTHONPATH"] = os.pathsep.join([here, *sys.path])
    for order in ({}, {"EMULATED_ORDER": "1"}):
        path = str(tmp_path / f"{len(order)}.pt")
        subprocess.run([sys.executable, "-c", PROGRAM, path], env=env | order, check=True)
    forward, backward = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_graphs_replay_beside_each_other():
    values = [drawn(321, 10, "cuda"), drawn(500, 70, "cuda")]
    wanted = [added(v)[0] for v in values]
    runs = [kernel(SOURCE, "add_up_rows")] * 2
    found = []
    for v, run in zip(values, runs, strict=True):
        (count, n), graph = v.shape, torch.cuda.CUDAGraph()
        result, ends = torch.zeros_like(v[0]), torch.zeros(1, dtype=torch.int32, device="cuda")
        with torch.cuda.graph(graph):
            rows = Rows.of(v, count, n)
            run((count,), 32, v, rows.argument, n, result, ends, shared=scratch(n, 32))
        found.append((graph, result, rows))
    streams = [torch.cuda.Stream() for _ in found]
    for _ in range(20):
        for (graph, _, _), stream in zip(found, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for (_, result, _), want in zip(found, wanted, strict=True):
        assert torch.equal(result, want)
