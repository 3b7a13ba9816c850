"""The whole network on this GPU: checked against float64 and plain torch, then timed beside U-Net in the same run.

    python benchmarks/gpu.py [--weights FILE] [--images FILE.npz] [--json benchmarks/results/HARDWARE.json]

Inference times are medians over replays of CUDA graphs, for both networks, from a tensor on the GPU to a tensor on
the GPU; training steps are whole ones (forward, loss, backward, clipping, AdamW), in a graph too. `floor` is the
time in which a copy on this GPU moves the bytes that can't be avoided: see docs/performance.md.

--images  an .npz with uint8 arrays (n, h, w, 3), sides multiples of 16, on which masks in bfloat16 are compared
          with those in float32; without it, noise is used and says little
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from unet import UNet

from ascseg_cli.kernels import backend
from ascseg_cli.kernels.cuda import compile_ahead
from ascseg_cli.network import ASCSeg
from ascseg_cli.training.settings import Settings, Stage
from ascseg_cli.training.step import Optimiser, TrainingStep

SIDE = 256
MASK_THRESHOLD = 0.5
CHECKED = 16  # images on which errors are measured
SETTINGS = (("fp32_exact", False, None), ("fp32", True, None), ("bf16", True, torch.bfloat16))
FLOOR_BYTES = 147e6  # an image's unavoidable traffic in float32, fully fused: docs/performance.md


def main() -> None:
    """Check, time, print one table, and write the figures if asked."""
    options = _options()
    torch.manual_seed(0)
    network = ASCSeg.from_weights(options.weights).cuda()
    figures: dict[str, Any] = {"hardware": torch.cuda.get_device_name(), "torch": torch.__version__}
    figures |= _check(network, _images(options.images, network))
    figures |= _inference(network, options.rounds)
    figures |= _training(options.rounds)
    figures["copy_tb_s"] = _copy_rate() / 1e12
    _print(figures)
    if options.json:
        content = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in figures.items()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    shipped = Path(__file__).resolve().parent.parent / "ascseg_cli/weights/files/kvasir-tiny.safetensors"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=shipped)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _images(path: Path | None, network: ASCSeg) -> Tensor:
    """Network input (n, 3, h, w) on the GPU, each channel normalised over the set."""
    if path is None:
        return torch.randn(8, 3, SIDE, SIDE, device="cuda")
    with np.load(path) as content:
        pixels = torch.from_numpy(np.concatenate([content[name] for name in content.files]))
    x = pixels.cuda().permute(0, 3, 1, 2).float()
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


# ---- right first -------------------------------------------------------------------------------------------


def _check(network: ASCSeg, images: Tensor) -> dict[str, float]:
    """Errors of the probabilities, and the share of mask pixels that bfloat16 changes."""
    x = images[: len(images) // CHECKED * CHECKED : max(1, len(images) // CHECKED)]
    with torch.no_grad():
        for t in (x[:4], images[:32], images[:32].bfloat16()):
            compile_ahead(lambda t=t: network.heads(t))
    doubled = ASCSeg(network.channels).cuda().double().eval()
    doubled.load_state_dict(network.state_dict())
    with torch.no_grad():
        exact = _maps(doubled, x.double())
        with _tf32(False):
            plain = _off(exact, network, x, "reference")
            fast = _off(exact, network, x, "gpu")
        with _tf32(True):
            tf32 = _off(exact, network, x, "gpu")
        found = {"error_float32": fast, "error_plain_float32": plain, "error_tf32": tf32}
        found["bf16_changed_share"] = _changed(network, images)
    print("  ".join(f"{key} {value:.2e}" for key, value in found.items()))
    if not (fast <= max(2 * plain, 1e-6) and tf32 <= 2e-3):
        print("WRONG: the fast path is too far from float64")
    return found


def _off(exact: Tensor, network: ASCSeg, x: Tensor, name: str) -> float:
    with backend.using(name):
        return (_maps(network, x).double() - exact).abs().max().item()


def _maps(network: ASCSeg, x: Tensor) -> Tensor:
    """All four probability maps of each image, (n, 4 h w), four images at a time."""
    parts = ([p.flatten(1) for p in network.heads(some)] for some in x.split(4))
    return torch.cat([torch.cat(maps, 1) for maps in parts])


def _changed(network: ASCSeg, images: Tensor) -> float:
    """The share of all pixels whose mask differs between bfloat16 and float32 storage."""
    different = 0
    with backend.using("gpu"), _tf32(False):
        for batch in images.split(32):
            masks = [network.probability(t).float() >= MASK_THRESHOLD for t in (batch, batch.bfloat16())]
            different += int((masks[0] != masks[1]).sum())
    return different / (images.numel() / 3)


# ---- then fast ---------------------------------------------------------------------------------------------


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=allowed):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


def _inference(network: ASCSeg, rounds: int) -> dict[str, float]:
    """Milliseconds a pass of one image, images a second in passes of 32, for both networks."""
    unet = UNet().cuda().eval().to(memory_format=torch.channels_last)
    folded = {"": network.heads, "unet_": unet}
    figures: dict[str, float] = {}
    for prefix, run in folded.items():
        for label, tf32, dtype in (
            ("fp32_exact", False, None),
            ("fp32", True, None),
            ("bf16", True, torch.bfloat16),
        ):
            with torch.inference_mode(), _tf32(tf32):
                for b in (1, 32):
                    if not prefix:
                        compile_ahead(_pass(prefix, run, b, dtype))
                    ms = statistics.median(_replays(_pass(prefix, run, b, dtype), rounds))
                    name = f"forward_b{b}_{label}"
                    figures[prefix + name + ("_ms" if b == 1 else "_img_s")] = ms if b == 1 else 1000 * b / ms
    for prefix in folded:
        figures[f"{prefix}forward_b1_ms"] = figures[f"{prefix}forward_b1_fp32_ms"]
    with torch.inference_mode(), _tf32(True):
        figures["forward_b1_eager_ms"] = statistics.median(_timed(_pass("", network.heads, 1, None), rounds))
        with backend.using("reference"):
            figures["plain_forward_b1_eager_ms"] = statistics.median(_timed(_pass("", network.heads, 1, None), 5))
    return figures


def _pass(prefix: str, run: Callable[[Tensor], Any], b: int, dtype: torch.dtype | None) -> Callable[[], Any]:
    x = torch.randn(b, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
    if prefix and dtype:

        def cast() -> Any:
            with torch.autocast("cuda", dtype):
                return run(x)

        return cast
    x = x.to(dtype or torch.float32)
    return lambda: run(x)


def _timed(run: Callable[[], Any], rounds: int, inner: int = 1) -> list[float]:
    """Milliseconds of each of `rounds` runs, after two that don't count."""
    times = []
    for _ in range(rounds + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(inner):
            run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / inner)
    return times[2:]


def _replays(run: Callable[[], Any], rounds: int) -> list[float]:
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return _timed(graph.replay, rounds, inner=5)


def _training(rounds: int) -> dict[str, float]:
    """Milliseconds and GiB of a step of eight images, TF32 where torch uses it."""
    figures: dict[str, float] = {}
    settings = Settings(steps=100, batch=8)
    with _tf32(True):
        for prefix, model in (("", ASCSeg()), ("unet_", _OneHead(UNet()))):
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            base = torch.cuda.memory_allocated()
            times = _step_times(model.cuda(), settings, rounds)
            figures[f"{prefix}train_b8_ms"] = statistics.median(times)
            figures[f"{prefix}train_b8_peak_gib"] = (torch.cuda.max_memory_allocated() - base) / 2**30
            figures[f"{prefix}train_b8_ms_least"], figures[f"{prefix}train_b8_ms_most"] = min(times), max(times)
    return figures


class _OneHead(nn.Module):
    """U-Net's one logit map for a loss that sums over maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def low_logits(self, x: Tensor) -> list[Tensor]:
        return [self.network(x)]


def _step_times(model: nn.Module, settings: Settings, rounds: int) -> list[float]:
    step = TrainingStep(model, Optimiser(model, settings), Stage(number=0, end=1, size=SIDE, batch=8))
    x = torch.randn(8, 3, SIDE, SIDE, device="cuda")
    t = (torch.rand(8, 1, SIDE, SIDE, device="cuda") > 0.7).float()
    for _ in range(12):
        step(x, t, 1e-3)
    return _timed(lambda: step(x, t, 1e-3), rounds)


def _copy_rate() -> float:
    """Bytes read and written a second by a copy of 1 GiB."""
    source = torch.empty(2**28, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / (statistics.median(_timed(lambda: target.copy_(source), 10)) / 1000)


# ---- and shown ---------------------------------------------------------------------------------------------

ROWS = (
    ("forward b1, float32, ms", "forward_b1_fp32_exact_ms"),
    ("forward b1, TF32, ms", "forward_b1_fp32_ms"),
    ("forward b1, bfloat16, ms", "forward_b1_bf16_ms"),
    ("forward b32, float32, img/s", "forward_b32_fp32_exact_img_s"),
    ("forward b32, TF32, img/s", "forward_b32_fp32_img_s"),
    ("forward b32, bfloat16, img/s", "forward_b32_bf16_img_s"),
    ("training step b8, TF32, ms", "train_b8_ms"),
    ("  peak memory, GiB", "train_b8_peak_gib"),
)


def _print(figures: dict[str, Any]) -> None:
    print(f"{figures['hardware']}, torch {figures['torch']}, copying {figures['copy_tb_s']:.2f} TB/s")
    print(f"{'':34}{'ASC-Seg':>10}{'U-Net 31 M':>12}{'U-Net / ours':>14}")
    for label, key in ROWS:
        ours, other = figures[key], figures[f"unet_{key}"]
        ratio = ours / other if "img/s" in label else other / ours
        print(f"{label:34}{ours:10.2f}{other:12.2f}{ratio:13.2f}×")
    floor = FLOOR_BYTES / (figures["copy_tb_s"] * 1e12) * 1e6
    image = 1e6 / figures["forward_b32_fp32_img_s"]
    print(f"floor {floor:.0f} µs an image; b32 takes {image:.0f} µs, {image / floor:.1f} times as long")
    print(f"without a graph, b1: {figures['forward_b1_eager_ms']:.2f} ms; ", end="")
    print(f"plain torch {figures['plain_forward_b1_eager_ms']:.1f} ms")


if __name__ == "__main__":
    main()
