"""Checkpoints as people have them become weights files: the numbers by torch's own reader, nothing executed."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import CHANNELS, random_tensors, torch_state
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from ascseg_cli.errors import OutputError, WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.weights.importing import import_weights

TENSORS = random_tensors()
OPTIMISER = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}},
    "param_groups": [{"lr": np.float64(1e-3), "params": [0], "betas": (0.9, 0.999)}],
}


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


def same(got: dict[str, np.ndarray], want: dict[str, np.ndarray] = TENSORS) -> bool:
    return got.keys() == want.keys() and all(
        got[name].dtype == np.float32 and np.array_equal(got[name], want[name]) for name in want
    )


def marked(tensor: torch.Tensor) -> torch.Tensor:
    """With an attribute of its own, as Mamba's code gives its parameters; torch pickles such tensors otherwise."""
    tensor = tensor.detach() if not isinstance(tensor, torch.nn.Parameter) else tensor
    tensor._no_weight_decay = True  # type: ignore[attr-defined]
    return tensor


WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda s: s,
    "parallel": lambda s: prefixed(s, "module."),
    "compiled": lambda s: prefixed(s, "_orig_mod.module."),
    "state_dict": lambda s: {"epoch": 3, "state_dict": prefixed(s, "module."), "optimizer": OPTIMISER},
    "model": lambda s: {"model": s, "best": np.float64(0.5), "when": np.arange(3), "lr": [1, 2.5, None, True]},
    "model_state_dict": lambda s: {"model_state_dict": s, "args": argparse.Namespace(lr=1, out=pathlib.Path("x"))},
    "net": lambda s: {"net": s},
    "lightning": lambda s: {
        "state_dict": prefixed(s, "model.net."),
        "hyper_parameters": {"size": torch.Size((2, 2))},
    },
    "nested": lambda s: {
        "checkpoint": {"student": {"weights": s}},
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    },
    "parameters": lambda s: {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()},
    "marked": lambda s: {n: marked(torch.nn.Parameter(t) if n.endswith("A_log") else t) for n, t in s.items()},
    "profiled": lambda s: s | {"total_ops": torch.zeros(1), "encoder.total_params": torch.zeros(1)},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_usual_wrapping_is_imported(wrapping: str, legacy: bool, tmp_path: Path) -> None:
    source, output = tmp_path / "best.pth", tmp_path / "best.safetensors"
    torch.save(WRAPPINGS[wrapping](torch_state(TENSORS)), source, _use_new_zipfile_serialization=not legacy)
    imported = import_weights(source, output)
    content = checkpoint.read(output)
    assert same(content.tensors)
    assert content.sha256 == imported.sha256
    assert imported.notes == (
        ("left out total_ops and total_params, which a profiler added",) if wrapping == "profiled" else ()
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    torch.save({"model": torch_state(TENSORS), "n": 2**80}, tmp_path / "best.pth", pickle_protocol=protocol)
    import_weights(tmp_path / "best.pth", tmp_path / "best.safetensors")
    assert same(checkpoint.read(tmp_path / "best.safetensors").tensors)


def test_the_metadata_are_those_of_the_original(tmp_path: Path) -> None:
    torch.save(torch_state(TENSORS), tmp_path / "mein bestes.pth")
    metadata = import_weights(tmp_path / "mein bestes.pth", tmp_path / "w.safetensors", dataset="kvasir").metadata
    assert metadata.preprocessing.model_dump() == {
        "rule": "stretch_bilinear",
        "size": (256, 256),
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    }
    assert (metadata.threshold, metadata.variant, metadata.channels) == (0.5, "tiny", CHANNELS)
    assert (metadata.name, metadata.dataset) == ("w", "kvasir")
    assert "Jha" in metadata.citation
    assert metadata.licence
    assert metadata.source.startswith("imported from mein bestes.pth, PyTorch checkpoint, sha256 ")
    assert checkpoint.read_metadata(tmp_path / "w.safetensors") == metadata
    with pytest.raises(WeightsError, match="no data set is named kvasri") as caught:
        import_weights(tmp_path / "mein bestes.pth", tmp_path / "v.safetensors", dataset="kvasri")
    assert caught.value.hint == "did you mean kvasir?"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_other_precisions_become_float32_with_a_word(dtype: str, form: str, tmp_path: Path) -> None:
    source, state = tmp_path / "best", torch_state(TENSORS, dtype)
    if form == "safetensors":
        save_torch_file(state, source)
    else:
        torch.save(state, source, _use_new_zipfile_serialization=form == "zip")
    imported = import_weights(source, tmp_path / "w.safetensors")
    assert imported.notes == (f"converted to float32 from {dtype}",)
    want = {name: state[name].float().numpy() for name in TENSORS}
    assert same(checkpoint.read(tmp_path / "w.safetensors").tensors, want)


def test_views_of_shared_storages_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    """Strides and offsets: every tensor is a transposed or shifted view of one storage."""
    flat = torch.from_numpy(np.concatenate([np.abs(t).ravel() for t in TENSORS.values()]))
    state, at = {}, 0
    for name, values in TENSORS.items():
        view = flat[at : at + values.size].reshape(values.shape[::-1])
        state[name], at = view.permute(*reversed(range(values.ndim))), at + values.size
    torch.save(state, tmp_path / "best.pth")
    loaded = torch.load(tmp_path / "best.pth", weights_only=True)
    import_weights(tmp_path / "best.pth", tmp_path / "w.safetensors")
    assert same(checkpoint.read(tmp_path / "w.safetensors").tensors, {n: t.numpy() for n, t in loaded.items()})


def test_the_golden_form_leaves_everything_but_the_weights_out(golden: Path, tmp_path: Path) -> None:
    imported = import_weights(golden, tmp_path / "w.safetensors")
    tensors = load_file(golden)
    content = checkpoint.read(tmp_path / "w.safetensors")
    assert content.metadata.channels == CHANNELS
    assert same(content.tensors, {n: tensors[f"weights.{n}"] for n in expected_shapes(CHANNELS)})
    assert imported.notes == ("took weights.*, left out train.grad.*",)


@pytest.mark.parametrize("channels", [(16, 32, 48, 64), (4, 4, 8, 12), (12, 8, 20, 4)])
def test_any_channels_are_imported(channels: tuple[int, ...], tmp_path: Path) -> None:
    tensors = random_tensors(channels)
    extra = {"input": np.zeros((1, 3, 16, 16), np.float32), "eval.encoder.eb1": np.zeros(3, np.float32)}
    save_file({f"weights.{n}": t for n, t in tensors.items()} | extra, tmp_path / "golden.safetensors")
    metadata = import_weights(tmp_path / "golden.safetensors", tmp_path / "w.safetensors").metadata
    assert metadata.channels == channels
    assert metadata.variant == ("small" if channels[0] == 16 else "custom")
    assert same(checkpoint.read(tmp_path / "w.safetensors").tensors, tensors)


def test_a_safetensors_header_that_begins_like_a_pickle_or_a_zip_is_safetensors(tmp_path: Path) -> None:
    """Its first two bytes are the low bytes of a length, which may be \\x80\\x04 or "PK"."""
    data = (tmp_path / "w").with_name("plain.safetensors")
    save_file(TENSORS, data)
    content = data.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for start in (b"\x80\x04", b"PK"):
        longer = next(n for n in range(length, length + 2**17) if n.to_bytes(8, "little")[:2] == start)
        data.write_bytes(
            longer.to_bytes(8, "little")
            + content[8 : 8 + length]
            + b" " * (longer - length)
            + content[8 + length :]
        )
        import_weights(data, tmp_path / "w.safetensors", overwrite=True)
        assert same(checkpoint.read(tmp_path / "w.safetensors").tensors)


def test_of_several_networks_the_best_known_is_taken_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    state, other = torch_state(TENSORS), torch_state(random_tensors(seed=1))
    torch.save({"model_ema": other, "model": state}, tmp_path / "best.pth")
    imported = import_weights(tmp_path / "best.pth", tmp_path / "w.safetensors")
    assert imported.notes == ("took model.*, left out model_ema.*",)
    assert same(checkpoint.read(tmp_path / "w.safetensors").tensors)
    torch.save({"teacher": other, "student": state}, tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=r"holds several networks: teacher\., student\."):
        import_weights(tmp_path / "best.pth", tmp_path / "v.safetensors")


def with_change(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    state = torch_state(TENSORS)
    change(state)
    return state


ANCHOR = "encoder.eb1.ipc.0.weight"
MISFITS: dict[str, tuple[Any, str]] = {
    "missing": (
        with_change(lambda s: [s.pop(f"final.ph{i}.pro.0.bias") for i in (1, 2, 3, 4)]),
        r"channels \[8, 16, 24, 32\]: 4 missing \(final.ph1.pro.0.bias, .* … \(4 in all\)\)",
    ),
    "unexpected": (with_change(lambda s: s.update(aux=torch.ones(1))), r"1 not of this network \(aux\)"),
    "shape": (
        with_change(lambda s: s.update({"final.ph1.pro.0.bias": torch.ones(2)})),
        r"1 of another shape \(final.ph1.pro.0.bias is \[2\], must be \[1\]\)",
    ),
    "anchor": (with_change(lambda s: s.pop(ANCHOR)), f"holds no ASC-Seg network: no {ANCHOR} in it"),
    "stage": (
        with_change(lambda s: s.pop("encoder.eb3.ipc.0.weight")),
        "no whole ASC-Seg network: encoder.eb3.ipc.0",
    ),
    "channels": (
        with_change(lambda s: s.update({ANCHOR: torch.ones(6, 3, 7, 7)})),
        r"channels are \[6, 16, 24, 32\]",
    ),
    "integers": (with_change(lambda s: s.update({ANCHOR: s[ANCHOR].long()})), "is i8; weights are floating point"),
    "nan": (with_change(lambda s: s[ANCHOR].fill_(float("nan"))), f"tensor {ANCHOR} holds NaN or infinity"),
    "overflow": (with_change(lambda s: s.update({ANCHOR: s[ANCHOR].double() * 1e300})), "holds NaN or infinity"),
    "variance": (with_change(lambda s: s["encoder.eb1.ipc.1.running_var"].neg_()), "is a variance"),
    "nothing": ({"epoch": 3}, r"holds no ASC-Seg network: .* \(0 tensors\)"),
    "a list": ([1, 2], "holds no ASC-Seg network"),
    "a tensor": (torch.ones(3), "holds no ASC-Seg network"),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_what_is_no_such_network_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    content, words = MISFITS[fault]
    torch.save(content, tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        import_weights(tmp_path / "best.pth", tmp_path / "w.safetensors")
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == [tmp_path / "best.pth"]


def test_outputs_are_protected(tmp_path: Path) -> None:
    source, output = tmp_path / "best.pth", tmp_path / "w.safetensors"
    torch.save(torch_state(TENSORS), source)
    output.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        import_weights(source, output)
    with pytest.raises(OutputError, match="is the source itself"):
        import_weights(source, source, overwrite=True)
    with pytest.raises(OutputError, match="is a folder"):
        import_weights(source, tmp_path, overwrite=True)
    assert output.read_text() == "precious"
    import_weights(source, output, overwrite=True)
    assert same(checkpoint.read(output).tensors)
    with pytest.raises(WeightsError, match="is already a weights file of ascseg") as caught:
        import_weights(output, tmp_path / "v.safetensors")
    assert f"--weights {output}" in caught.value.hint
