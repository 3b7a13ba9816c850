"""Which implementation of each operator runs, and why: chosen in one place, said once.

`reference`  plain torch: any device, any dtype
`cpu`        compiled by LLVM from numba's code: float32 on the CPU
`gpu`        CUDA C++: float32, and bfloat16 without gradients, on compute capability 8.0 and newer
`mamba_ssm`  the scan of the mamba_ssm package (extra `cuda`), everything else as `gpu` or `reference`

`auto` takes, for each call, the fastest that can run the tensors at hand.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ascseg_cli.errors import BackendError, UnknownBackendError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "reference", "cpu", "gpu", "mamba_ssm")

# What each operator is written for; where a backend has no version of it, the next in _STAND_IN runs instead.
OPERATORS: dict[str, tuple[str, ...]] = {
    "selective_scan": ("reference", "cpu", "mamba_ssm"),
    "deform_depthwise": ("reference", "cpu", "gpu"),
    "deform_block": ("reference", "gpu"),
    "chain": ("reference", "cpu", "gpu"),
    "mamba_mixer": ("reference", "cpu", "gpu", "mamba_ssm"),
    "segmentation_loss": ("reference", "gpu"),
    "channel_gate": ("reference", "cpu", "gpu"),
}
_STAND_IN = {"mamba_ssm": "gpu", "gpu": "reference", "cpu": "reference"}

log = logging.getLogger(__name__)
_wanted: ContextVar[str] = ContextVar("ascseg_backend", default="auto")
_unchanging: ContextVar[bool] = ContextVar("ascseg_unchanging", default=False)


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine; if not, why and what helps."""

    ok: bool
    reason: str = ""
    remedy: str = ""


@functools.cache
def availability(name: str) -> Availability:
    """Can `name` run here? Imports what the backend needs to be sure, once per process."""
    checks = {"reference": _reference, "cpu": _cpu, "gpu": _gpu, "mamba_ssm": _mamba_ssm}
    if name not in checks:
        raise UnknownBackendError(f"backend {name!r} is unknown", f"choose one of: {', '.join(NAMES)}")
    return checks[name]()


def _reference() -> Availability:
    return Availability(True)


def _cpu() -> Availability:
    from ascseg_cli.kernels import machine_code

    if machine_code.usable():
        return Availability(True)
    try:
        import numba  # noqa: F401
    except Exception as error:  # a broken llvmlite raises OSError, a wrong numpy ImportError
        return Availability(False, f"numba can't be imported ({error})", "run: pip install numba")
    return Availability(True)


def _gpu() -> Availability:
    import torch

    if not torch.cuda.is_available():
        why = "this torch has no CUDA" if torch.version.cuda is None else "no CUDA GPU was found"
        return Availability(
            False, why, "use a machine with an NVIDIA GPU and a CUDA build of torch, or --device cpu"
        )
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return Availability(
            False,
            f"the GPU has compute capability {major}.{minor}; the kernels need 8.0",
            "use --backend reference",
        )
    from ascseg_cli.kernels.cuda import compiler

    try:
        compiler.library()
    except BackendError as error:
        return Availability(False, error.message, error.hint or "use --backend reference")
    return Availability(True)


def _mamba_ssm() -> Availability:
    import torch

    missing = [p for p in ("mamba_ssm", "causal_conv1d") if importlib.util.find_spec(p) is None]
    if missing:
        return Availability(False, f"{' and '.join(missing)} not installed", 'run: pip install "ascseg[cuda]"')
    if not torch.cuda.is_available():
        return Availability(False, "no CUDA GPU was found", "use --backend auto")
    return Availability(True)


def resolve(wanted: str, device_type: str) -> tuple[str, str]:
    """The backend that will run float32 tensors on a device, and why if it is a fallback.

    wanted       one of NAMES
    device_type  "cpu", "cuda", "mps", …
    returns      (name, note); note is empty unless a slower backend stands in for the fast one
    Raises BackendError where a backend asked for by name can't run there.
    """
    if wanted != "auto":
        status = availability(wanted)
        if not status.ok:
            raise BackendError(f"backend {wanted!r} can't run: {status.reason}", status.remedy)
        needs = {"cpu": "cpu", "gpu": "cuda", "mamba_ssm": "cuda"}.get(wanted)
        if needs is not None and device_type != needs:
            raise BackendError(
                f"backend {wanted!r} runs on {needs}, but the device is {device_type}",
                f"use --device {needs}, or --backend auto",
            )
        return wanted, ""
    fast = {"cpu": "cpu", "cuda": "gpu"}.get(device_type)
    if fast is None:
        return "reference", f"no compiled kernels for {device_type}"
    status = availability(fast)
    return (fast, "") if status.ok else ("reference", f"{status.reason}; {status.remedy}")


def first_wait(name: str) -> str:
    """About how long the first result on this machine waits for kernels, in words; empty where some are kept."""
    if name == "cpu":
        from ascseg_cli.kernels import jit, machine_code

        folder, words = jit.cache_folder(), "3 s" if machine_code.usable() else "20 s"
    elif name == "gpu":
        from ascseg_cli.kernels.cuda import compiler

        folder, words = compiler.cache_folder(), "15 s, less with many cores"
    else:
        return ""
    return "" if folder and any(folder.iterdir()) else words


def for_tensor(tensor: torch.Tensor, half: bool = False) -> str:
    """The backend for one call: the wanted one, or under `auto` the fastest that takes this tensor.

    half  on a GPU the operator takes bfloat16, too
    """
    import torch

    wanted = _wanted.get()
    device, dtype = tensor.device.type, tensor.dtype
    if wanted == "auto" and dtype != torch.float32 and not (half and device == "cuda" and dtype == torch.bfloat16):
        return "reference"
    return resolve(wanted, device)[0]


def for_operator(operator: str, tensor: torch.Tensor, half: bool = False) -> str:
    """The backend for one call of one of OPERATORS; half as in `for_tensor`."""
    name = for_tensor(tensor, half)
    while name not in OPERATORS[operator] or not availability(name).ok:
        name = _STAND_IN[name]
    return name


@functools.cache
def announce_reference(operator: str, why: str) -> None:
    """Warn, once a process, that plain torch computes an operator in place of the backend that was picked."""
    log.warning("%s is computed by plain torch, which is slow: %s", operator, why)


@contextlib.contextmanager
def unchanging() -> Iterator[None]:
    """Inside, the weights of every layer are those of its last call: nothing asks whether one has changed."""
    token = _unchanging.set(True)
    try:
        yield
    finally:
        _unchanging.reset(token)


def is_unchanging() -> bool:
    """Whether the call is inside `unchanging`."""
    return _unchanging.get()


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Run every kernel inside the block on backend `name` (one of NAMES)."""
    if name not in NAMES:
        raise UnknownBackendError(f"backend {name!r} is unknown", f"choose one of: {', '.join(NAMES)}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)
