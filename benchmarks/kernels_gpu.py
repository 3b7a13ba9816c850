"""Check the GPU kernels against plain torch in float64, then time them: `python benchmarks/kernels_gpu.py`.

Times are medians over replays of a CUDA graph, so that launches cost nothing; `floor` is the time in which the
bytes that must move (every input read once, every output written once) could be copied on this GPU, measured in
the same run. `plain` is the reference in plain torch, for the shapes where it fits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernels"))

from cases import DEFORM_CASES, SCAN_CASES, DeformCase, ScanCase, judge

from ascseg_cli.kernels.deform_depthwise import gpu as deform_gpu
from ascseg_cli.kernels.deform_depthwise import reference as deform_reference
from ascseg_cli.kernels.selective_scan import gpu as scan_gpu
from ascseg_cli.kernels.selective_scan import reference as scan_reference

# the four stages of variant tiny at 256×256, for one image and for eight; a Mamba sees four groups an image
SCANS = [(4 * b, l, e) for b in (1, 8) for l, e in ((65536, 4), (16384, 8), (4096, 12), (1024, 16))]
DEFORMS = [(b, c, side) for b in (1, 8) for c, side in ((8, 256), (16, 128), (24, 64), (32, 32))]


def check() -> int:
    """How many cases fail."""
    failed = 0
    for name, cases, fast, plain in (
        ("scan", SCAN_CASES, scan_gpu.selective_scan, scan_reference.selective_scan),
        ("deform", DEFORM_CASES, deform_gpu.deform_depthwise, deform_reference.deform_depthwise),
    ):
        for label, case in cases.items():
            try:
                judge(fast, plain, case, "cuda")
                _same_again(fast, case)
            except AssertionError as error:
                failed += 1
                print(f"FAIL {name}, {label}: {error}")
        print(f"{name}: {len(cases)} cases checked against float64")
    return failed


def _same_again(operator: Callable[..., Tensor], case: ScanCase | DeformCase) -> None:
    """Two runs, the second replayed from a CUDA graph, agree to the bit in the result and in every gradient."""
    inputs = case.inputs("cuda")
    step = _step(operator, inputs, case.gradient("cuda"))
    first = [t.clone() for t in step()]
    graph, second = _capture(step)
    for t in second:
        t.fill_(float("nan"))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(first, second)), "two runs differ"


def _step(operator: Callable[..., Tensor], inputs: dict, gradient: Tensor) -> Callable[[], list[Tensor]]:
    wanted = [t for t in inputs.values() if t is not None and t.requires_grad]

    def step() -> list[Tensor]:
        y = operator(**inputs)
        return [y.detach(), *torch.autograd.grad(y, wanted, gradient)]

    return step


def _capture(step: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph, results


def milliseconds(run: Callable[[], object], repeats: int = 30) -> float:
    """The median; a large write between runs leaves nothing of theirs in the cache."""
    flush = torch.empty(64 * 2**20, device="cuda")
    times = []
    for i in range(repeats + 3):
        flush.fill_(i)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


def bytes_per_ms() -> float:
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / milliseconds(lambda: target.copy_(source))


def measure(operator: Callable, plain: Callable, case: ScanCase | DeformCase, rate: float) -> dict[str, float]:
    inputs, gradient = case.inputs("cuda"), case.gradient("cuda")
    with torch.no_grad():
        graph, _ = _capture(lambda: [operator(**inputs)])
    row = {"forward_ms": milliseconds(graph.replay)}
    graph, _ = _capture(_step(operator, inputs, gradient))
    row["both_ms"] = milliseconds(graph.replay)
    read = sum(t.numel() * 4 for t in inputs.values() if t is not None)
    out = gradient.numel() * 4
    row["forward_floor_ms"], row["both_floor_ms"] = (read + out) / rate, (3 * read + 2 * out) / rate
    del graph
    row["plain_both_ms"] = milliseconds(_step(plain, inputs, gradient), 5)
    torch.cuda.empty_cache()
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = check()
    name, rate = torch.cuda.get_device_name(), bytes_per_ms()
    print(f"{name}, torch {torch.__version__}; copying {rate / 1e9:.2f} TB/s; times in ms")
    print(f"{'':34}{'forward':>9}{'floor':>8}{'both':>9}{'floor':>8}{'plain':>9}")
    rows = {}
    for b, l, e in SCANS:
        case = ScanCase(b, l, e, delta=(-7.0, -2.0))
        rows[f"scan {b} rows, l {l}, e {e}"] = measure(
            scan_gpu.selective_scan, scan_reference.selective_scan, case, rate
        )
    for b, c, side in DEFORMS:
        case = DeformCase(b, c, side, side, reach=1.0, strided=False)
        rows[f"deform {b}×{c}×{side}×{side}"] = measure(
            deform_gpu.deform_depthwise, deform_reference.deform_depthwise, case, rate
        )
    for label, row in rows.items():
        print(
            f"{label:34}{row['forward_ms']:9.4f}{row['forward_floor_ms']:8.4f}"
            f"{row['both_ms']:9.4f}{row['both_floor_ms']:8.4f}{row['plain_both_ms']:9.2f}"
        )
    if options.output:
        report = {"gpu": name, "torch": torch.__version__, "copy_tb_s": rate / 1e9, "failed": failed, "rows": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
