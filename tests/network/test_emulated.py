"""The whole network in evaluation on the GPU's kernels, run on the CPU, against the golden file.

Slow motion, but every kernel takes part, at the golden input's 32×48 px. `tests/long/emulated_training.py` does
the same for training.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ascseg_cli.kernels import cuda
from ascseg_cli.kernels.chain.passes import launch
from ascseg_cli.kernels.chain.passes.packing import PAIRS
from ascseg_cli.kernels.mamba_mixer import gpu_warps
from ascseg_cli.network import ASCSeg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))

from emulator.emulate import emulated

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ isn't installed"),
    pytest.mark.timeout(1200),  # a hundred kernels are compiled first
]


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, Tensor]:
    return load_file(golden)


@pytest.fixture
def on_cpu() -> Iterator[None]:
    with emulated():
        yield


def network(reference: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> ASCSeg:
    weights = {name.removeprefix("weights."): t for name, t in reference.items() if name.startswith("weights.")}
    net = ASCSeg()
    net.load_state_dict(weights, strict=False)
    return net.to(dtype)


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got.detach().double() - want.double()).norm() / want.double().norm())


def test_probabilities_equal_the_original(reference: dict[str, Tensor], on_cpu: None) -> None:
    with torch.no_grad():
        got = network(reference).eval().heads(reference["input"])
    errors = [relative_error(p, reference[f"eval.probability.{i}"]) for i, p in enumerate(got)]
    assert max(errors) <= 1e-6


def test_tf32_moves_probabilities_little(reference: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_warps, "_FEW", 1)  # the mixer's kernels of large images, the only ones that may round
    seen = []
    for module in (launch, gpu_warps):
        monkeypatch.setattr(
            module, "kernel", lambda *what, **how: seen.append((what, how)) or cuda.kernel(*what, **how)
        )
    with emulated(tf32=True), torch.no_grad():
        got = network(reference).eval().heads(reference["input"])
    errors = [float((p - reference[f"eval.probability.{i}"]).abs().max()) for i, p in enumerate(got)]
    assert max(errors) <= 1e-5, errors  # 1.5e-7 without TF32
    assert PAIRS in {how["TENSOR"] for _, how in seen if "TENSOR" in how}
    assert "replay" in {name for (_, name), _ in seen}
