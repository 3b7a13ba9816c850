"""Mutated text files of every kind that a user or an earlier run hands over: each is read, or refused in one line.

    python tests/long/fuzz_texts.py --count 500 --seed 1

Kinds: training configurations, split files, tables of patients, the rows of an evaluation, lists of inputs, and
what an earlier run left: its journal and its run.json. A fault is anything but AscsegError, a message that isn't
one line, more than five seconds for a file, or, for what an earlier run left, a folder that --resume doesn't
complete to the same bytes and rows. `tests/inference/test_fuzz_texts.py` runs a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "long"), str(TESTS / "inference")]

from fuzz_decode import mutated  # noqa: E402
from kill_predict import written  # noqa: E402
from stand_in import GreenEngine, green_disc, save_picture  # noqa: E402

from ascseg_cli.cli.prediction import read_list  # noqa: E402
from ascseg_cli.data.discover import discover  # noqa: E402
from ascseg_cli.data.pairs import Pair  # noqa: E402
from ascseg_cli.data.split import PARTS  # noqa: E402
from ascseg_cli.data.split_file import read_split  # noqa: E402
from ascseg_cli.data.table import read_table, rows_of  # noqa: E402
from ascseg_cli.errors import AscsegError  # noqa: E402
from ascseg_cli.evaluation.rows_file import read_rows  # noqa: E402
from ascseg_cli.inference.outputs import OutputFolder  # noqa: E402
from ascseg_cli.inference.run import Run  # noqa: E402
from ascseg_cli.inference.settings import KINDS, Settings  # noqa: E402
from ascseg_cli.training import configuration  # noqa: E402

SLOWEST = 5.0
ODD = (
    b"nan", b"-inf", b"1e999", b"-1", b"9" * 400, b"1e-400", b"true", b"null", b"{}", b"[[]]", b'""', b"'", b'"',
    b"[" * 3000, b'{"a":' * 3000, b"\\ud800", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b",,,", b"=",
    b"../../etc/passwd", b"/dev/zero", b"=cmd|' /C calc'!A0", b"\x1b[2J", "\u202e".encode(), b"a" * 200_000,
)  # fmt: skip
Read = Callable[[Path], object]


def spoilt(text: bytes, chance: random.Random) -> bytes:
    """Bytes changed anywhere, or a word exchanged for one that readers stumble over."""
    if text.startswith(b"{") and chance.random() < 0.5:
        return restructured(text, chance)
    if chance.random() < 0.4:
        return mutated(text, chance)
    words = text.replace(b",", b" , ").replace(b":", b" : ").split(b" ")
    for _ in range(chance.choice((1, 1, 2, 5))):
        words[chance.randrange(len(words))] = chance.choice(ODD)
    return b" ".join(words).replace(b" , ", b",").replace(b" : ", b":")


def restructured(text: bytes, chance: random.Random) -> bytes:
    """JSON, a document or one a line, in which some value is another: other kinds, other signs, other sizes."""
    documents = [json.loads(line) for line in (text.splitlines() if text.count(b'"image"') > 1 else [text])]
    for _ in range(chance.choice((1, 1, 2, 4))):
        inner: Any = documents
        while True:
            key = chance.choice(list(inner if isinstance(inner, dict) else range(len(inner))))
            if not isinstance(inner[key], (dict, list)) or not inner[key] or chance.random() < 0.3:
                break
            inner = inner[key]
        inner[key] = chance.choice(
            [None, True, -1, 10**40, 1e300, "", "\x00", "../../x", [], [[1]], {}, {"a": {}}]
        )
    return b"\n".join(json.dumps(document).encode() for document in documents) + b"\n"


class EarlierRun:
    """A finished run whose records are spoilt; reading one means to resume it and to compare."""

    def __init__(self, folder: Path, record: str) -> None:
        self._photos, self._record = folder / "photos", record
        for number in range(3):
            save_picture(self._photos / f"{number}.png", green_disc(number))
        self._whole = folder / "whole"
        self._run(self._whole, "new")
        self._want = written(self._whole)
        self.content = (self._whole / record).read_bytes()

    def __call__(self, path: Path) -> None:
        output = path.parent / "resumed"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(self._whole, output)
        shutil.copy(path, output / self._record)
        self._run(output, "resume")
        got = written(output)
        if got[0] != self._want[0]:
            raise AssertionError(f"{sorted(set(got[0]) ^ set(self._want[0]))} or other bytes after --resume")
        if got[1] != self._want[1]:
            raise AssertionError(f"other rows after --resume: {got[1]}")

    def _run(self, output: Path, mode: str) -> None:
        found, engine = discover([self._photos], output=output), GreenEngine()
        run = Run(
            found, engine, Settings(0.5, save=KINDS), OutputFolder(output),
            mode=mode, threads=1, arguments=[], on_result=lambda _: None, warn=lambda _: None,
        )  # fmt: skip
        run()


def kinds(folder: Path) -> Iterator[tuple[str, bytes, Read]]:
    """(kind, a whole file, what reads it)"""
    pairs = [Pair(Path(f"images/a/{n}.png"), (Path(f"masks/{n}.png"),)) for n in range(6)]
    images = [str(pair.image) for pair in pairs]
    given = {**configuration.defaults(100, "folders", None), "data": "photos"}
    settings = configuration.to_toml(configuration.resolve(given, {}))

    def configure(path: Path) -> None:
        read = configuration.read_file(path)
        configuration.check_given(read)
        configuration.resolve(read, given)

    yield "configuration", settings.encode(), configure
    split = "image,part\n" + "".join(f"a/{n}.png,{PARTS[n % 3]}\n" for n in range(6))
    yield "split file", split.encode(), lambda path: read_split(path, pairs)
    table = "image,patient\n" + "".join(f'a/{n}.png,"p, {n // 2}"\n' for n in range(6))
    yield "table", table.encode(), lambda path: rows_of(path, read_table(path, "patient"), images)
    yield "evaluation rows", _evaluation_rows(), read_rows

    def listed(path: Path) -> None:
        before = os.getcwd()
        os.chdir(folder / "journal")  # names are relative: a spoilt one shall not mean the whole disk
        try:
            discover([], output=folder / "out", listed=read_list(str(path), null=False))
        finally:
            os.chdir(before)

    for record in ("journal.jsonl", "run.json"):
        place = folder / record.partition(".")[0]
        earlier = EarlierRun(place, record)
        yield record, earlier.content, earlier
    yield "list of inputs", b"photos/0.png\nphotos/1.png\nphotos/2.png\n", listed


def _evaluation_rows() -> bytes:
    from ascseg_cli.evaluation.metrics import MASK_METRICS

    columns = ["name", "height", "width", "tp", "fp", "fn", "tn", *MASK_METRICS]
    return (",".join(columns) + "\n" + ",".join(["a.png"] + ["1"] * (len(columns) - 1)) + "\n").encode()


def fault_of(read: Read, path: Path) -> str | None:
    """None if the file was read, "" if it was refused as it should be, else what went wrong."""
    begin = time.perf_counter()
    try:
        read(path)
        fault = None
    except AscsegError as error:
        fault = "" if error.message and "\n" not in error.message + error.hint else f"says {error.message!r}"
    except BaseException as error:
        fault = f"{type(error).__name__}: {str(error)[:300]}"
    seconds = time.perf_counter() - begin
    return f"took {seconds:.1f} s" if seconds > SLOWEST else fault


def fuzz(count: int, seed: int, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """By kind how many were read and refused; and the faults, each with the file that was kept."""
    summary: dict[str, Counter[str]] = {}
    faults = []
    for kind, whole, read in kinds(folder):
        assert fault_of(read, _put(folder, kind, whole)) is None, f"{kind}: the whole file isn't read"
        summary[kind] = Counter()
        for turn in range(count):
            content = spoilt(whole, random.Random(f"{kind} {seed} {turn}"))
            path = _put(folder, kind, content)
            fault = fault_of(read, path)
            summary[kind]["read" if fault is None else "refused" if not fault else "FAULT"] += 1
            if fault:
                kept = path.with_name(f"{path.name}-{turn}")
                kept.write_bytes(content)
                faults.append(f"{kept}: {fault}")
    return summary, faults


def _put(folder: Path, kind: str, content: bytes) -> Path:
    path = folder / kind.replace(" ", "-")
    path = path.with_name(f"spoilt-{path.name}")
    path.write_bytes(content)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    summary, faults = fuzz(arguments.count, arguments.seed, Path(tempfile.mkdtemp(prefix="fuzz-texts-")))
    for kind, counts in summary.items():
        print(f"{kind:18} {dict(counts)}")
    print(f"{time.perf_counter() - begin:.0f} s")
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
