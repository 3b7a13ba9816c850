"""The network on this CPU: inference, over cores, its first call, JPEGs from end to end, and a training step.

    python benchmarks/cpu.py [FOLDER] [--threads 2] [--rounds 15] [--training 3] [--json FILE] [--avx2]

FOLDER holds the JPEG files of the end-to-end row; without it, the drawn examples are used, over and over. Rivals
are timed in turns with what they are compared to, in one process: a plain U-Net of 31 M parameters; the plain
formulas (every operator's `reference`); and plain torch with only the scan and the sampling compiled. Nothing is
timed before the results agree. Quote the ratios where other work shares the machine. --avx2 switches AVX-512 off
for torch, oneDNN and our kernels.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from simd import without_avx512

from ascseg_cli.inference.threads import shorten_waits, usable_threads

shorten_waits()  # as the command does, before torch is loaded
AVX2 = "--avx2" in sys.argv
if AVX2:
    without_avx512()

import torch  # noqa: E402
from cpu_runs import Times, end_to_end, first_call, inference, scaling, take_turns, training  # noqa: E402

FLOOR = 0.05  # s: the network's multiply-adds at 112 GFLOP/s of two cores, 0.03, and the scan, 0.02

ROWS = {  # row of the table -> key of the JSON file
    "compiled (what predict runs)": "network_s",
    "plain torch, scan and sampling compiled": "plain_torch_two_operators_s",
    "plain formulas": "plain_s",
    "U-Net, 31 M parameters": "unet_s",
    "training step b4, compiled": "training_step_s",
    "training step b4, plain formulas": "training_step_plain_s",
}


def main() -> None:
    """Check, time, print one table, and write the figures if asked."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    fresh, cached = first_call()
    runs, off = inference(options.size)
    times = take_turns({name: runs[name] for name in list(runs)[:2]}, options.rounds)
    times |= take_turns({name: runs[name] for name in list(runs)[2:]}, max(1, options.rounds // 5))
    by_threads = scaling(runs["compiled (what predict runs)"], usable_threads(), options.rounds)
    if options.training:
        times |= take_turns(training(options.size), options.training)
    rate, files = end_to_end(options.folder, options.threads)
    content = _figures(times) | {"end_to_end_img_s": rate, "end_to_end_files": files}
    content |= {"first_call_s": fresh, "first_call_cached_s": cached, "largest_difference": off}
    seconds = {count: round(statistics.median(w for w, _ in taken), 4) for count, taken in by_threads.items()}
    content |= {"network_s_by_threads": seconds}
    content |= {"hardware": hardware(), "simd": simd(), "threads": options.threads, "torch": torch.__version__}
    _print(times, content, options.size)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="JPEG files for the end-to-end row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="of the network; slow rivals get a fifth")
    parser.add_argument("--training", type=int, default=3, help="rounds of the training step; 0 leaves it out")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--avx2", action="store_true", help="switch AVX-512 off")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _figures(times: dict[str, Times]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for row, taken in times.items():
        wall = [w for w, _ in taken]
        figures[ROWS[row]] = round(statistics.median(wall), 4)
        figures[f"{ROWS[row]}_least_most"] = [round(min(wall), 4), round(max(wall), 4)]
        figures[f"{ROWS[row]}_cpu"] = round(min(c for _, c in taken), 4)
    return figures


def _print(times: dict[str, Times], content: dict[str, Any], size: int) -> None:
    print(f"{content['hardware']} ({content['simd']}), torch {content['torch']}, {content['threads']} threads")
    print(f"{size}×{size} px; largest difference to plain torch {content['largest_difference']:.1e}")
    print(f"{'':41}{'median s':>9}{'least s':>9}{'most s':>9}{'CPU s':>8}")
    for row, taken in times.items():
        wall, cpu = [w for w, _ in taken], min(c for _, c in taken)
        print(f"{row:41}{statistics.median(wall):9.3f}{min(wall):9.3f}{max(wall):9.3f}{cpu:8.3f}")
    by_threads = content["network_s_by_threads"]
    print(f"{'compiled, with ' + ', '.join(map(str, by_threads)) + ' threads':41}", end="")
    print("".join(f"{seconds:9.3f}" for seconds in by_threads.values()))
    print(f"times the floor of {FLOOR} s: {content['network_s'] / FLOOR:.1f}", end="; ")
    if "training_step_s" in content:
        print(f"training: {content['training_step_plain_s'] / content['training_step_s']:.1f} times plain", end="")
    print(
        f"\nfirst call {content['first_call_s']:.1f} s once, then {content['first_call_cached_s']:.2f} s", end="; "
    )
    print(f"{content['end_to_end_files']} JPEGs to masks: {content['end_to_end_img_s']:.1f} images/s")


def hardware() -> str:
    """The processor's name."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def simd() -> str:
    """The widest vectors that the kernels can use."""
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "").split()
    return next((name for name in ("avx512f", "avx2")[AVX2:] if name in flags), platform.machine())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
