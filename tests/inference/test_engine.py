"""The torch engine: the same numbers as the network itself, on any backend, and clear refusals."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from ascseg_cli.errors import BackendError, DeviceMemoryError, UsageError, WeightsError
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.checkpoint import read, write


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, 3, 32, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def exact(drawn_weights: Path, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return ASCSeg.from_weights(drawn_weights).double().heads(torch.from_numpy(images).double())[0][:, 0]


@pytest.mark.parametrize("name", ["reference", "cpu", "gpu", "auto"])
def test_probabilities_are_the_first_head(
    drawn_weights: Path, images: np.ndarray, exact: torch.Tensor, name: str
) -> None:
    if name != "auto" and not backend.availability(name).ok:
        pytest.skip(f"backend {name}: {backend.availability(name).reason}")
    engine = open_engine(drawn_weights, backend=name, device={"gpu": "cuda", "cpu": "cpu"}.get(name, "auto"))
    got = engine.probabilities(images)
    assert got.shape == (3, 32, 48)
    assert got.dtype == np.float32
    assert np.abs(got - exact.numpy()).max() < 2e-6
    assert engine.backend == ({"auto": engine.backend}.get(name, name))
    assert engine.backend != "auto"


def test_an_image_does_not_feel_its_batch(drawn_weights: Path, images: np.ndarray) -> None:
    engine = open_engine(drawn_weights, device="cpu")
    alone = np.concatenate([engine.probabilities(images[i : i + 1]) for i in range(3)])
    assert np.abs(engine.probabilities(images) - alone).max() < 1e-6


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_pass_without_memory_is_named_and_lets_go_of_what_it_held(
    drawn_weights: Path, images: np.ndarray, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(drawn_weights, device="cpu", backend="reference")
    taken: list[weakref.ref[torch.Tensor]] = []

    def full(x: torch.Tensor) -> torch.Tensor:
        held = x + 1
        taken.append(weakref.ref(held))
        raise type(error)(*error.args)

    forgotten: list[bool] = []
    monkeypatch.setattr(engine, "_run", full)
    monkeypatch.setattr(engine, "_forget", lambda: forgotten.append(taken[0]() is None))
    with pytest.raises(DeviceMemoryError, match="cpu has no memory for 3 images at once"):
        engine.probabilities(images)
    assert forgotten == [True], "recordings go when the pass itself is gone"


def test_other_errors_of_a_pass_are_not_taken_for_lack_of_memory(
    drawn_weights: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(drawn_weights, device="cpu", backend="reference")

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(engine, "_run", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.probabilities(images)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_unknown_devices_are_named(drawn_weights: Path, device: str) -> None:
    with pytest.raises(BackendError, match="unknown"):
        open_engine(drawn_weights, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize(("device", "name"), [("cuda", "auto"), ("cpu", "gpu"), ("cpu", "mamba_ssm")])
def test_what_cannot_run_is_an_error_with_a_remedy(drawn_weights: Path, device: str, name: str) -> None:
    with pytest.raises(BackendError, match="can't") as caught:
        open_engine(drawn_weights, device=device, backend=name)
    assert caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_precision_that_the_device_lacks_is_an_error(drawn_weights: Path, precision: str) -> None:
    with pytest.raises(BackendError, match=f"precision {precision} needs the backend gpu; here cpu runs on cpu"):
        open_engine(drawn_weights, precision=precision, backend="cpu")


def test_an_unknown_precision_is_named(drawn_weights: Path) -> None:
    with pytest.raises(UsageError, match="precision 'half' is unknown"):
        open_engine(drawn_weights, precision="half")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU was found")
@pytest.mark.parametrize(("precision", "most"), [("tf32", 2e-3), ("bfloat16", 5e-2)])
def test_lower_precisions_differ_a_little(
    drawn_weights: Path, images: np.ndarray, exact: torch.Tensor, precision: str, most: float
) -> None:
    got = open_engine(drawn_weights, precision=precision).probabilities(images)
    assert not np.array_equal(got, open_engine(drawn_weights).probabilities(images))
    assert np.abs(got - exact.numpy()).max() < most


def test_weights_too_large_for_float32_give_no_numbers_and_no_warning(
    drawn_weights: Path, images: np.ndarray, tmp_path: Path
) -> None:
    checkpoint = read(drawn_weights)
    state = {name: np.full_like(values, 1e30) for name, values in checkpoint.tensors.items()}
    write(tmp_path / "large.safetensors", state, checkpoint.metadata)
    engine = open_engine(tmp_path / "large.safetensors", device="cpu")  # tests take warnings for errors
    assert not np.isfinite(engine.probabilities(images)).any()


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        open_engine(tmp_path / "none.safetensors")
