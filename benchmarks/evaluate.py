"""Every metric of ours beside the loop over MONAI's HD95 alone that people write; CPU times of one run.

    python benchmarks/evaluate.py [PAIRS]      pairs of 512×512; default 1,000

Needs MONAI (and medpy, where its column shall appear). The masks lie in memory: reading files costs both the same.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch

from ascseg_cli.evaluation.metrics import Ruler, score

SIZE = 512
Pair = tuple[np.ndarray, np.ndarray]


def pairs(count: int) -> Iterator[Pair]:
    """A smooth lesion and a prediction of it that is a little off, foreground about a third of the picture."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    dome = 2.2 - 14 * (rows**2 + columns**2)
    for _ in range(count):
        coarse, fine = (cv2.GaussianBlur(random.normal(size=(SIZE, SIZE)), (0, 0), SIZE / n) for n in (14, 30))
        shape = coarse / coarse.std() + dome
        yield shape + 0.3 * fine / fine.std() > 0.6, shape > 0.6


def ours(pair: Pair) -> float:
    """HD95 out of all eleven metrics."""
    value = score(*pair, Ruler())[1]["hd95"]
    assert value is not None
    return value


def monai_hd95() -> Callable[[Pair], float]:
    """The loop's body with MONAI."""
    from monai.metrics import compute_hausdorff_distance

    def measure(pair: Pair) -> float:
        pred, truth = (torch.from_numpy(mask)[None, None].float() for mask in pair)
        return float(compute_hausdorff_distance(pred, truth, include_background=True, percentile=95))

    return measure


def medpy_hd95() -> Callable[[Pair], float]:
    """The loop's body with medpy, whose percentile is over both directions together."""
    from medpy.metric.binary import hd95

    return lambda pair: float(hd95(*pair))


def main() -> None:
    """Time all on the same pairs, one after the other on each pair, so that a busy machine hits all alike."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ways: dict[str, Callable[[Pair], float]] = {"ascseg, 11 metrics": ours, "MONAI, HD95 alone": monai_hd95()}
    try:
        ways["medpy, HD95 alone"] = medpy_hd95()
    except ImportError as error:
        print(f"without medpy: {error}")
    seconds, values = dict.fromkeys(ways, 0.0), {way: [] for way in ways}
    for pair in pairs(5):  # compile and warm up
        for measure in ways.values():
            measure(pair)
    for pair in pairs(count):
        for way, measure in ways.items():
            started = time.process_time()
            values[way].append(measure(pair))
            seconds[way] += time.process_time() - started
    base = seconds["ascseg, 11 metrics"]
    print(f"{count:,} pairs of {SIZE}×{SIZE}, CPU time")
    for way, took in seconds.items():
        away = np.abs(np.subtract(values[way], values["ascseg, 11 metrics"]))
        print(
            f"{way:20}{1000 * took / count:8.2f} ms a pair  {took / base:5.1f}×   "
            f"HD95 differs by {away.mean():.2g} px in the mean, {away.max():.2g} at most"
        )


if __name__ == "__main__":
    main()
