"""Which backend runs: what was asked for or a clear refusal; under `auto` the fastest that can, and why not."""

from __future__ import annotations

import threading

import pytest
import torch

from ascseg_cli.errors import BackendError
from ascseg_cli.kernels import backend
from ascseg_cli.kernels.backend import Availability


@pytest.fixture
def without(monkeypatch):
    """without(name): as if that backend could not run on this machine."""
    backend.availability.cache_clear()

    def remove(name: str) -> None:
        monkeypatch.setattr(backend, f"_{name}", lambda: Availability(False, "it is missing", "get it"))

    yield remove
    backend.availability.cache_clear()


def test_auto_takes_the_compiled_kernels_on_the_cpu():
    assert backend.resolve("auto", "cpu") == ("cpu", "")


def test_auto_falls_back_and_says_why(without):
    without("cpu")
    assert backend.resolve("auto", "cpu") == ("reference", "it is missing; get it")
    assert backend.for_tensor(torch.zeros(1)) == "reference"


def test_auto_has_nothing_compiled_for_other_devices():
    assert backend.resolve("auto", "mps") == ("reference", "no compiled kernels for mps")


@pytest.mark.parametrize("name", ["cpu", "gpu", "mamba_ssm"])
def test_a_wanted_backend_that_cannot_run_is_an_error_with_its_remedy(without, name):
    without(name)
    with pytest.raises(BackendError, match=f"backend '{name}' can't run: it is missing") as caught:
        backend.resolve(name, "cpu")
    assert caught.value.hint == "get it"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("name", ["gpu", "mamba_ssm"])
def test_without_a_gpu_its_backends_say_so(name):
    status = backend.availability(name)
    assert not status.ok
    assert status.reason
    assert status.remedy
    with pytest.raises(BackendError, match=f"backend '{name}' can't run"), backend.using(name):
        backend.for_tensor(torch.zeros(1))


def test_a_backend_on_the_wrong_device_is_an_error():
    with pytest.raises(BackendError, match="'cpu' runs on cpu, but the device is cuda") as caught:
        backend.resolve("cpu", "cuda")
    assert "--device cpu" in caught.value.hint


def test_the_reference_runs_anywhere():
    assert backend.resolve("reference", "xpu") == ("reference", "")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_auto_gives_other_precisions_to_the_reference(dtype):
    assert backend.for_tensor(torch.zeros(1, dtype=dtype)) == "reference"
    assert backend.for_tensor(torch.zeros(1)) == "cpu"


def test_using_holds_inside_its_block_alone():
    x = torch.zeros(1)
    with backend.using("reference"):
        assert backend.for_tensor(x) == "reference"
        with backend.using("cpu"):
            assert backend.for_tensor(x) == "cpu"
        assert backend.for_tensor(x) == "reference"
    with pytest.raises(RuntimeError, match="inside"), backend.using("reference"):
        raise RuntimeError("inside")
    assert backend.for_tensor(x) == "cpu"


def test_using_does_not_reach_other_threads():
    seen = []
    with backend.using("reference"):
        thread = threading.Thread(target=lambda: seen.append(backend.for_tensor(torch.zeros(1))))
        thread.start()
        thread.join()
    assert seen == ["cpu"]


@pytest.mark.parametrize("ask", [lambda: backend.using("fast").__enter__(), lambda: backend.availability("fast")])
def test_an_unknown_backend_is_named(ask):
    with pytest.raises(BackendError, match="backend 'fast' is unknown") as caught:
        ask()
    assert "auto, reference, cpu, gpu, mamba_ssm" in caught.value.hint


def test_the_first_wait_is_told_until_something_is_kept(monkeypatch, tmp_path):
    from ascseg_cli.kernels import jit, machine_code

    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(machine_code, "usable", lambda: True)
    assert backend.first_wait("cpu") == "3 s"
    monkeypatch.setattr(machine_code, "usable", lambda: False)
    assert backend.first_wait("cpu") == "20 s"
    (tmp_path / "chain.o").touch()
    assert backend.first_wait("cpu") == ""
    assert backend.first_wait("reference") == ""
