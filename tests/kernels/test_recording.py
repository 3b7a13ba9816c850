"""Recorded passes of the CPU kernels: bit for bit what the function itself gives."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ascseg_cli.inference import replay
from ascseg_cli.kernels import backend, machine_code
from ascseg_cli.kernels.chain import Chain, chain
from ascseg_cli.kernels.compiled import launch
from ascseg_cli.kernels.recording import Recording, UnrecordableError
from ascseg_cli.kernels.recording.gang import Gang
from ascseg_cli.kernels.recording.pool import Pool
from ascseg_cli.network import ASCSeg

pytestmark = pytest.mark.skipif(not machine_code.usable(), reason="this LLVM is too old for the kernels' code")


@pytest.fixture(autouse=True)
def compiled_kernels() -> Iterator[None]:
    before = torch.get_num_threads()
    with torch.inference_mode(), backend.using("cpu"), backend.unchanging():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> ASCSeg:
    torch.manual_seed(0)
    return ASCSeg().eval()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 32, 32), (1, 3, 16, 16)], ids=str)
def test_a_replay_is_the_network(network, threads, shape):
    torch.set_num_threads(threads)
    recording = Recording(network.probability, torch.randn(shape))
    for _ in range(3):
        x = torch.randn(shape)
        assert torch.equal(recording(x), network.probability(x))


def test_numbers_that_are_none_stay_none(network):
    x = torch.randn(1, 3, 32, 32)
    recording = Recording(network.probability, x)
    x[0, 1, 3, 4] = torch.nan
    assert recording(x).isnan().any()
    x[0, 1, 3, 4] = 0.0
    assert torch.equal(recording(x), network.probability(x))


def test_memory_serves_again(network):
    x = torch.randn(1, 3, 64, 64)
    made: list[int] = []
    tensor = Pool.tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "tensor", lambda self, like: made.append(like.numel()) or tensor(self, like))
        recording = Recording(network.probability, x)
    assert sum(map(len, recording._pool._blocks)) < sum(made) / 2


def _scaled(first: int, last: int, x: np.ndarray, y: np.ndarray) -> None:
    y[first:last] = 2 * x[first:last]


CANNOT = {
    "an operator of torch that isn't known": lambda x: x.cumsum(3),
    "a number that Python sees": lambda x: x * x.sum().item(),
    "a tensor that is written to": lambda x: (x + 1).mul_(2),
    "a result that is the argument's": lambda x: torch.ones(3),
    "a kernel of numba's": lambda x: launch(_scaled, 4, np.ones(4), np.ones(4)) or x + 1,
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_replayed_is_refused(name):
    with pytest.raises(UnrecordableError):
        Recording(CANNOT[name], torch.randn(1, 2, 8, 8))


def test_a_replay_that_gives_something_else_is_found_out(network, monkeypatch):
    monkeypatch.setattr(Gang, "run", lambda self, helpers: None)
    with pytest.raises(UnrecordableError, match="something else"):
        Recording(network.probability, torch.randn(1, 3, 16, 16))


def test_torchs_own_operators_run_between_kernels():
    steps = Chain(nn.ReLU())

    def mixed(x: Tensor) -> Tensor:
        y = chain(x, steps)
        z = chain(y + y.amax((2, 3), keepdim=True), steps)
        return (z + y).mean((2, 3)).sigmoid()

    recording = Recording(mixed, torch.randn(2, 3, 24, 40))
    x = torch.randn(2, 3, 24, 40)
    assert torch.equal(recording(x), mixed(x))


def test_each_thread_records_for_itself_and_gets_its_own(network, monkeypatch):
    made = []
    monkeypatch.setattr(replay.recording, "Recording", lambda *given: made.append(1) or Recording(*given))
    runs = replay.ReplayOfEachThread(network.probability)
    images = [torch.randn(1, 3, 32, 48) for _ in range(4)]
    wanted = [network.probability(x) for x in images]
    wrong: list[int] = []

    def work(number: int) -> None:
        with torch.inference_mode(), backend.using("cpu"), backend.unchanging():
            torch.set_num_threads(1 + number % 2)
            for _ in range(6):
                wrong.extend(0 if torch.equal(runs(images[number]), wanted[number]) else 1 for _ in range(2))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(wrong) == 48
    assert not any(wrong)
    assert len(made) == 4


def test_the_first_pass_of_a_shape_is_not_recorded_and_large_ones_never_are(network, monkeypatch):
    made = []
    monkeypatch.setattr(replay.recording, "Recording", lambda run, x: made.append(x.shape) or run)
    runs = replay.ReplayOfEachThread(network.probability)
    for shape in ((1, 3, 16, 16), (1, 3, 32, 16), (1, 3, 16, 16), (1, 3, 16, 16)):
        runs(torch.randn(shape))
    assert made == [(1, 3, 16, 16)]
    monkeypatch.setattr(replay, "MOST_NUMBERS", 3 * 16 * 16)
    for _ in range(2):
        runs(torch.randn(1, 3, 32, 16))
    assert made == [(1, 3, 16, 16)]


def test_a_pass_that_cannot_be_recorded_runs_as_it_is(monkeypatch):
    calls = []
    runs = replay.ReplayOfEachThread(lambda x: calls.append(1) or x.cumsum(3))
    x = torch.randn(1, 3, 8, 8)
    for _ in range(4):
        assert torch.equal(runs(x), x.cumsum(3))
    assert len(calls) == 5  # the second try was given up and done again


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_replays_with_threads_of_its_own(network):
    torch.set_num_threads(2)
    x = torch.randn(1, 3, 32, 32)
    recording = Recording(network.probability, x)
    wanted = recording(x).clone()
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(recording(x), wanted) else 1)
    ended, status, until = 0, 0, time.monotonic() + 30
    while not ended and time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended
    assert os.waitstatus_to_exitcode(status) == 0


def test_waiting_threads_leave_the_cores_to_others(network):
    """Four recordings at once, of three threads each, on however few cores: all come to their end."""
    torch.set_num_threads(3)
    x = torch.randn(1, 3, 32, 32)
    recordings = [Recording(network.probability, x) for _ in range(4)]
    wanted = recordings[0](x).clone()
    results: list[bool] = []

    def work(recording: Recording) -> None:
        results.extend(torch.equal(recording(x), wanted) for _ in range(5))

    threads = [threading.Thread(target=work, args=(one,)) for one in recordings]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert results == [True] * 20
