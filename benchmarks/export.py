"""One image from pixels to probability: the exported ONNX file, what predict runs, and plain torch, in turns.

    python benchmarks/export.py [--dataset kvasir] [--threads 2] [--rounds 9] [--json FILE]

Plain torch is the backend `reference`, its scan vectorised over √l chunks. Nothing is timed before results agree.
Wall seconds where the machine is idle; else CPU seconds on one thread, which other work disturbs less.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ascseg_cli.inference.threads import shorten_waits

shorten_waits()  # as the command does, before torch is loaded

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from cpu import hardware, simd  # noqa: E402
from cpu_runs import EXAMPLES, Times, take_turns  # noqa: E402

from ascseg_cli.data.decode import read_pixels  # noqa: E402
from ascseg_cli.graphs.form import Form, texts  # noqa: E402
from ascseg_cli.graphs.to_onnx import file  # noqa: E402
from ascseg_cli.inference.engine import open_engine  # noqa: E402
from ascseg_cli.inference.tta import predict_probability  # noqa: E402
from ascseg_cli.network.checkpoint import read  # noqa: E402
from ascseg_cli.weights.store import locate  # noqa: E402

GOAL = 0.6  # of plain torch's time


def main() -> None:
    """Check, time, print one table, and write the figures if asked."""
    options = _options()
    torch.set_num_threads(options.threads)
    pixels = read_pixels(EXAMPLES / "polyps" / "polyp_1.jpg")
    runs = _runs(options.dataset, options.threads, pixels)
    results = {name: run() for name, run in runs.items()}
    off = {name: float(np.abs(found - results["plain torch"]).max()) for name, found in results.items()}
    assert max(off.values()) < 1e-4, off
    times = take_turns(runs, options.rounds)
    content = _figures(times) | {"largest_difference": max(off.values()), "hardware": hardware(), "simd": simd()}
    content |= {"threads": options.threads, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    _print(times, content)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="kvasir")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _runs(dataset: str, threads: int, pixels: np.ndarray) -> dict[str, Any]:
    weights = locate(dataset)
    native, plain = (open_engine(weights, device="cpu", backend=name) for name in ("auto", "reference"))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    checkpoint = read(weights)
    content = file.content(checkpoint, Form(), texts(checkpoint, Form()))
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    return {
        "exported, onnxruntime": lambda: session.run(["probability"], {"image": pixels[None]})[0][0],
        "what predict runs": lambda: predict_probability(native, pixels),
        "plain torch": lambda: predict_probability(plain, pixels),
    }


def _figures(times: dict[str, Times]) -> dict[str, Any]:
    wall, cpu = ({n: statistics.median(t[i] for t in taken) for n, taken in times.items()} for i in (0, 1))
    figures: dict[str, Any] = {"wall_s": wall, "cpu_s": cpu}
    for name, seconds in figures.copy().items():
        figures[f"{name}_ratio_to_plain"] = {n: round(s / seconds["plain torch"], 3) for n, s in seconds.items()}
    return figures


def _print(times: dict[str, Times], content: dict[str, Any]) -> None:
    print(f"{content['hardware']} ({content['simd']}), {content['threads']} threads", end="; ")
    print(f"torch {content['torch']}, onnxruntime {content['onnxruntime']}")
    print(f"one image of 432×512 px; largest difference {content['largest_difference']:.1e}; medians of ", end="")
    print(f"{len(times['plain torch'])} rounds")
    print(f"{'':24}{'wall s':>9}{'CPU s':>9}{'of plain, wall':>16}{'CPU':>7}")
    for name in times:
        shares = (content[f"{kind}_s_ratio_to_plain"][name] for kind in ("wall", "cpu"))
        print(f"{name:24}{content['wall_s'][name]:9.3f}{content['cpu_s'][name]:9.3f}", end="")
        print("{:16.2f}{:7.2f}".format(*shares))
    print(f"goal: exported at most {GOAL} of plain torch")


if __name__ == "__main__":
    main()
