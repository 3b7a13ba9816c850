"""The network's inference on this CPU, compiled against plain torch, side by side in one run.

    python benchmarks/cpu.py [--threads 2] [--rounds 15] [--size 256] [--json benchmarks/results/HARDWARE.json]

Plain torch is the `reference` of every operator, channels-last, but for the scan, which would take it
ten seconds, and the deformable sampling: those two are compiled in both. Checks the results against each
other before it times them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from ascseg_cli.inference.threads import shorten_waits

shorten_waits()  # as the command does, before torch is loaded

import torch  # noqa: E402

from ascseg_cli.kernels import backend  # noqa: E402
from ascseg_cli.network import ASCSeg  # noqa: E402


def main() -> None:
    """Check, time, print one table, and write the figures if asked."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    runs = _runs(options.size)
    with torch.inference_mode():
        started = time.perf_counter()
        results = {name: run() for name, run in runs.items()}
        first = time.perf_counter() - started
        off = (results["compiled"] - results["plain"]).abs().max().item()
        if not off <= 1e-5:
            raise SystemExit(f"the results differ by {off:.2g}; at most 1e-5 is rounding")
        times = _times(runs, options.rounds)
    print(f"{_hardware()}, torch {torch.__version__}, {options.threads} threads, {options.size}×{options.size} px")
    print(f"largest difference of the probabilities: {off:.1e}; both first calls: {first:.2f} s")
    print(f"{'':10} {'median s':>9} {'least s':>9} {'most s':>9} {'CPU s':>9}")
    for name, (wall, cpu) in times.items():
        print(f"{name:10} {statistics.median(wall):9.3f} {min(wall):9.3f} {max(wall):9.3f} {min(cpu):9.3f}")
    if options.json:
        figures = {"network_s": "compiled", "network_plain_torch_but_two_operators_s": "plain"}
        content = {key: round(statistics.median(times[name][0]), 4) for key, name in figures.items()}
        content |= {"hardware": _hardware(), "threads": options.threads, "torch": torch.__version__}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _runs(size: int) -> dict[str, Callable[[], torch.Tensor]]:
    network, x = ASCSeg().eval(), torch.rand(1, 3, size, size)
    plain = ASCSeg().eval()
    plain.load_state_dict(network.state_dict())
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = x.contiguous(memory_format=torch.channels_last)

    def compiled() -> torch.Tensor:
        with backend.using("cpu"):
            return network.probability(x)

    def by_modules() -> torch.Tensor:
        with backend.using("cpu"), _only("selective_scan", "deform_depthwise"):
            return plain.probability(last)

    return {"compiled": compiled, "plain": by_modules}


class _only:
    """Inside, the compiled versions of the named operators alone run; the others are plain torch."""

    def __init__(self, *operators: str) -> None:
        self._operators = operators

    def __enter__(self) -> None:
        self._before = dict(backend.OPERATORS)
        for name in set(self._before) - set(self._operators):
            backend.OPERATORS[name] = ("reference",)

    def __exit__(self, *_: object) -> None:
        backend.OPERATORS.update(self._before)


def _times(runs: dict[str, Callable[[], torch.Tensor]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Wall and CPU seconds of every round; the runs take turns, so that what else the machine does hits all."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name][0].append(time.perf_counter() - wall)
            times[name][1].append(time.process_time() - cpu)
    return times


def _hardware() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    main()
