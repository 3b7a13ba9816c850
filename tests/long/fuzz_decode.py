"""Mutated images of every format: each must be read whole or refused in one line, in bounded time and memory.

    python tests/long/fuzz_decode.py --count 5000 --seed 1

What is checked of each: nothing but InputError comes out, no warning, no wait above the limit, the pixels have
the shape and type promised, both readers agree whether it is a picture; at the end, how far memory grew.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

from pictures import dicom_samples, samples

from ascseg_cli.data.decode import read_mask, read_pixels
from ascseg_cli.errors import InputError

MAX_PIXELS = 4_000_000
SLOWEST = 5.0  # seconds for one file: real ones take milliseconds


@dataclass
class Report:
    """What came of all files; `faults` must stay empty."""

    files: int = 0
    read: int = 0
    slowest: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few changes of one of the kinds that files suffer or attackers make."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(changed)) if len(changed) else 0
        if chance.random() < 0.5:
            place = min(place, chance.randrange(120))  # headers decide most
        match chance.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[place : place + 1] = bytes([changed[place] ^ 1 << chance.randrange(8)]) if changed else b""
            case 2:
                changed[place : place + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")
                )
            case 3:
                del changed[place : place + chance.randrange(1, 40)]
            case 4:
                changed[place:place] = chance.randbytes(chance.randrange(1, 40))
            case 5:
                del changed[place:]
            case 6:
                other = chance.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + 64]
    return bytes(changed)


def check(name: str, data: bytes, report: Report) -> None:
    report.files += 1
    begin = time.perf_counter()
    try:
        pixels = read_pixels(data, max_pixels=MAX_PIXELS)
    except InputError as error:
        _check_refusal(name, error, report)
        pixels = None
    except BaseException as error:
        report.faults.append(f"{name}: {type(error).__name__}: {error}")
        return
    seconds = time.perf_counter() - begin
    report.slowest = max(report.slowest, seconds)
    if seconds > SLOWEST:
        report.faults.append(f"{name}: {seconds:.1f} s")
    if pixels is not None:
        report.read += 1
        _check_pixels(name, data, pixels, report)


def _check_refusal(name: str, error: InputError, report: Report) -> None:
    report.refused[re.sub(r"[\d,]+", "n", error.message.split(":")[0].split(" with ")[0])[:40]] += 1
    text = error.message + error.hint
    if not error.message or "\n" in text or len(error.message) > 200 or not text.isprintable():
        report.faults.append(f"{name}: bad message {text!r}")


def _check_pixels(name: str, data: bytes, pixels: np.ndarray, report: Report) -> None:
    h, w = pixels.shape[:2]
    if pixels.dtype != np.uint8 or pixels.shape != (h, w, 3) or not 0 < h * w <= MAX_PIXELS:
        report.faults.append(f"{name}: pixels {pixels.dtype} {pixels.shape}")
    try:
        mask = read_mask(data, max_pixels=MAX_PIXELS)
    except InputError as error:
        if "palette mask" not in error.message:
            report.faults.append(f"{name}: a picture but no mask: {error}")
    else:
        if mask.dtype != bool or mask.shape != (h, w):
            report.faults.append(f"{name}: mask {mask.dtype} {mask.shape}")


def fuzz(count: int, seed: int) -> Report:
    """`count` mutations, spread evenly over all kinds; the same for the same seed."""
    kinds = sorted({**samples(), **dicom_samples()}.items())
    report = Report()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(count):
            name, data = kinds[i % len(kinds)]
            chance = random.Random(f"{seed}/{i}")
            check(f"{name} #{i}", mutated(data, chance), report)
    return report


def memory() -> int:
    """The process's largest memory so far in MB; 0 where the system doesn't tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    fuzz(100, arguments.seed)
    before, begin = memory(), time.perf_counter()
    report = fuzz(arguments.count, arguments.seed)
    seconds = time.perf_counter() - begin
    print(f"{report.files} files in {seconds:.0f} s, {report.read} read, slowest {report.slowest:.3f} s")
    print(f"largest memory {memory()} MB, {memory() - before} MB more than after the first hundred")
    for message, number in report.refused.most_common():
        print(f"{number:6d}  {message}")
    for fault in report.faults:
        print("FAULT", fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
