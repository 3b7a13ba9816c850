"""What `cpu.py` times: the network and its rivals as functions without arguments."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ascseg_cli.inference.replay import ReplayOfEachThread
from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.loss import deep_supervision_loss

Times = list[tuple[float, float]]  # wall and CPU seconds of each round
Run = Callable[[], object]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

FIRST = """
import time, torch
from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
network, x = ASCSeg().eval(), torch.rand(1, 3, 256, 256)
with torch.inference_mode(), backend.using("cpu"):
    started = time.perf_counter()
    network.probability(x)
    first = time.perf_counter() - started
    started = time.perf_counter()
    network.probability(x)
print(first - (time.perf_counter() - started))
"""


def take_turns(runs: dict[str, Run], rounds: int) -> dict[str, Times]:
    """Every round's seconds; in turns, so that what else the machine does hits all alike.

    Two rounds before are unmeasured: in the first kernels are made ready, in the second the pass is recorded.
    """
    times: dict[str, Times] = {name: [] for name in runs}
    for number in range(-2, rounds):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number >= 0:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def scaling(run: Run, most: int, rounds: int) -> dict[int, Times]:
    """The rounds of `run` by its number of threads: 1, 2, 4, … up to 16, as far as there are as many."""

    def with_threads(count: int) -> Run:
        def change_and_run() -> None:
            if torch.get_num_threads() != count:
                torch.set_num_threads(count)
            run()

        return change_and_run

    before = torch.get_num_threads()
    counts = [count for count in (1, 2, 4, 8, 16) if count <= most]
    times = take_turns({str(count): with_threads(count) for count in counts}, rounds)
    torch.set_num_threads(before)
    return {int(count): taken for count, taken in times.items()}


def inference(size: int) -> tuple[dict[str, Run], float]:
    """The network's runs by row, and how far the compiled probabilities lie from plain torch's."""
    network, x = ASCSeg().eval(), torch.rand(1, 3, size, size)
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = x.contiguous(memory_format=torch.channels_last)
    unet = UNet().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    replay = ReplayOfEachThread(network.probability)

    def compiled() -> Tensor:
        with torch.inference_mode(), backend.using("cpu"), backend.unchanging():
            return replay(x)

    def two_operators() -> Tensor:
        with torch.inference_mode(), backend.using("cpu"), _only("selective_scan", "deform_depthwise"):
            return plain.probability(last)

    def formulas() -> Tensor:
        with torch.inference_mode(), backend.using("reference"):
            return plain.probability(last)

    def rival() -> Tensor:
        with torch.inference_mode():
            return unet(last)

    wanted = formulas()
    off = max((compiled() - wanted).abs().max().item() for _ in range(3))  # as it is, recorded, and replayed
    if not off <= 1e-5:
        raise SystemExit(f"the results differ by {off:.2g}; at most 1e-5 is rounding")
    return {
        "compiled (what predict runs)": compiled,
        "plain torch, scan and sampling compiled": two_operators,
        "plain formulas": formulas,
        "U-Net, 31 M parameters": rival,
    }, off


def training(size: int, batch: int = 4) -> dict[str, Run]:
    """A step of forward, loss, backward and AdamW on random images."""
    x, target = torch.rand(batch, 3, size, size), (torch.rand(batch, 1, size, size) > 0.5).float()

    def step(name: str) -> Run:
        network = ASCSeg().train()
        optimiser = torch.optim.AdamW(network.parameters(), fused=True)

        def run() -> None:
            with backend.using(name):
                optimiser.zero_grad()
                deep_supervision_loss(network(x), target).backward()
                optimiser.step()

        return run

    return {"training step b4, compiled": step("cpu"), "training step b4, plain formulas": step("reference")}


def first_call() -> tuple[float, float]:
    """Seconds that the first image takes more than the second: on a new machine, and in every later process."""
    with tempfile.TemporaryDirectory() as home:
        fresh, cached = (_first(home) for _ in range(2))
    return fresh, cached


def _first(home: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"ASCSEG_HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", FIRST], env=environment, capture_output=True, text=True, check=True
    )
    return round(float(done.stdout), 3)


def end_to_end(folder: Path | None, threads: int, wanted: int = 128) -> tuple[float, int]:
    """Images a second of `ascseg predict` from JPEG files to masks and overlays on disk, its start not counted.

    The start is what the same command takes for a single image, less that image.
    """
    found = sorted((folder or EXAMPLES).rglob("*.jpg"))
    if not found:
        raise SystemExit(f"no .jpg file lies in {folder or EXAMPLES}")
    with tempfile.TemporaryDirectory() as place:
        source, one = Path(place) / "images", Path(place) / "one"
        source.mkdir()
        one.mkdir()
        for number in range(wanted):
            shutil.copy(found[number % len(found)], source / f"{number:04}.jpg")
        shutil.copy(found[0], one / "0.jpg")
        _predict(one, Path(place) / "warm", threads)
        start = _predict(one, Path(place) / "start", threads)
        taken = _predict(source, Path(place) / "out", threads)
    return round((wanted - 1) / (taken - start), 2), wanted


def _predict(source: Path, target: Path, threads: int) -> float:
    command = [sys.executable, "-m", "ascseg_cli", "predict", str(source), "--output", str(target)]
    command += ["--dataset", "kvasir", "--threads", str(threads)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


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


def _twice(into: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (into, out):
        layers += [nn.Conv2d(c, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """The plain U-Net of 31 M parameters: 64 to 1,024 channels, two convolutions a level, transposed up."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip((3, *widths), widths))
        pairs = list(zip(widths[:0:-1], widths[-2::-1]))  # (1024, 512) … (128, 64)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.join = nn.ModuleList(_twice(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, 3, h, w), h and w multiples of 16 -> probabilities (b, 1, h, w)."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, kept[-2::-1]):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x).sigmoid()
