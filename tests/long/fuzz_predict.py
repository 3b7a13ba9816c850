"""Mutated images of every format through a whole run: each has its row, no decoder is lost, nothing half is left.

python tests/long/fuzz_predict.py --count 5000 --seed 1
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "long"), str(TESTS / "data")]

from fuzz_decode import mutated  # noqa: E402
from many_images import OneLayer  # noqa: E402
from pictures import dicom_samples, samples  # noqa: E402

from ascseg_cli.data.discover import discover  # noqa: E402
from ascseg_cli.inference.outputs import OutputFolder  # noqa: E402
from ascseg_cli.inference.run import Run  # noqa: E402
from ascseg_cli.inference.settings import KINDS, Settings  # noqa: E402


def draw(folder: Path, count: int, seed: int) -> None:
    """`count` mutations, spread evenly over all kinds, with suffixes that are right, wrong or `.dcm`."""
    kinds = sorted({**samples(), **dicom_samples()}.items())
    folder.mkdir()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        suffix = chance.choice((".png", ".jpg", ".tif", ".bmp", ".webp", ".dcm"))
        (folder / f"{number:05}{suffix}").write_bytes(mutated(kinds[number % len(kinds)][1], chance))


def check(count: int, seed: int, root: Path) -> tuple[Counter[str], list[str]]:
    """The rows by status, and every fault."""
    draw(root / "photos", count, seed)
    output, said = root / "out", []
    found = discover([root / "photos"], output=output)
    run = Run(
        found, OneLayer(), Settings(0.5, save=KINDS, max_pixels=4_000_000), OutputFolder(output),
        mode="new", threads=2, arguments=[], on_result=lambda _: None, warn=said.append,
    )  # fmt: skip
    run()
    with open(output / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    faults = [line for line in said if "decoder" in line]
    if [row["image"] for row in rows] != [item.name for item in found.items] or len(rows) != count:
        faults.append(f"{len(rows)} rows for {count} files, or another order")
    for row in rows:
        good = row["status"] in ("ok", "empty")
        stem = Path(row["image"]).stem
        ends = {kind: "geojson" if kind == "polygons" else "png" for kind in KINDS}
        written = [kind for kind in KINDS if (output / kind / f"{stem}.{ends[kind]}").exists()]
        if len(written) != (len(KINDS) if good else 0) or (not good and not row["reason"]):
            faults.append(f"{row['image']}: {row['status']}, {row['reason']!r}, {written}")
    return Counter(row["status"] for row in rows), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        statuses, faults = check(arguments.count, arguments.seed, Path(root))
    print(f"{arguments.count} files in {time.perf_counter() - begin:.0f} s: {dict(statuses)}")
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
