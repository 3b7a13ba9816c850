"""Thousands of mutated weights files, checkpoints and manifests: each is read, or refused in one clear line.

Run:  python tests/long/fuzz_weights.py [COUNT] [SEED]      COUNT of each kind, 1,000 if not given
Anything but AscsegError, a message of several lines, or more than five processor seconds for one file is a
failure, and the file that caused it is kept. `tests/weights/test_fuzz.py` runs a small sample. Memory is held to
4 GiB on Linux.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "weights"))

from made_up import random_tensors, torch_state  # noqa: E402
from safetensors.numpy import save  # noqa: E402

from ascseg_cli.errors import AscsegError  # noqa: E402
from ascseg_cli.network import checkpoint  # noqa: E402
from ascseg_cli.network.metadata import Metadata, Preprocessing  # noqa: E402
from ascseg_cli.weights.importing import import_weights  # noqa: E402
from ascseg_cli.weights.manifest import FILE_NAME, parse_manifest  # noqa: E402

CHANNELS = (4, 4, 4, 4)
SLOWEST = 5.0
ODD = [
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"\x00" * 8,
    b"9" * 30,
    b"[",
    b"{",
    b'"',
    b"\n",
    b".",
    b"\x80\x02",
]


def mutated(data: bytes, source: random.Random) -> bytes:
    """A few changes, most of them near the beginning or the end, where headers and directories lie."""
    spoilt = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        span = source.choice((16, 200, 4000, len(spoilt)))
        at = source.randrange(min(span, len(spoilt)) + 1)
        at = len(spoilt) - at if source.random() < 0.3 else at
        match source.randrange(6):
            case 0:
                spoilt[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                spoilt[at : at + 4] = source.choice(ODD)
            case 2:
                spoilt[at:at] = source.choice(ODD)
            case 3:
                del spoilt[at : at + source.choice((1, 4, 100))]
            case 4:
                other = source.randrange(len(spoilt) + 1)
                spoilt[at : at + 32] = spoilt[other : other + 32]
            case 5:
                del spoilt[source.choice((at, len(spoilt) - 1)) :]
        if not spoilt:
            break
    return bytes(spoilt)


def zip_checkpoint(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def rezipped(data: bytes, source: random.Random) -> bytes:
    """A checkpoint whose pickle alone is mutated, in an archive whose sums are right again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, mutated(content, source) if entry.filename.endswith(".pkl") else content)
    return file.getvalue()


def kinds() -> dict[str, tuple[bytes, Callable[[bytes, random.Random], bytes], Callable[[Path], object]]]:
    """By kind: a whole file, the way to spoil it, and what reads it."""
    tensors = random_tensors(CHANNELS)
    state = {"model": torch_state(tensors), "optimizer": {"state": {0: {"m": torch.ones(2)}}, "lr": 1e-3}}
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    preprocessing = Preprocessing(rule="stretch_bilinear", size=(64, 64))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        metadata = Metadata(name="w", variant="custom", channels=CHANNELS, preprocessing=preprocessing)
        checkpoint.write(path, tensors, metadata)
        ours = path.read_bytes()
    manifest = (ROOT / FILE_NAME).read_bytes()

    def load(path: Path) -> object:
        return import_weights(path, path.with_name("out.safetensors"), overwrite=True)

    return {
        "weights": (ours, mutated, checkpoint.read),
        "import zip": (zip_checkpoint(state), mutated, load),
        "import pickle": (zip_checkpoint(state), rezipped, load),
        "import legacy": (legacy.getvalue(), mutated, load),
        "import safetensors": (save(tensors), mutated, load),
        "manifest": (
            manifest,
            mutated,
            lambda path: parse_manifest(path.read_bytes().decode("utf-8", "replace"), "m"),
        ),
    }


def fuzz(count: int, seed: int, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Counts by kind in words, and the failures, each with the file that was kept."""
    summary, failures = {}, []
    for kind, (whole, spoil, read) in kinds().items():
        source = random.Random(f"{kind} {seed}")
        path = folder / kind.replace(" ", "-")
        accepted, slowest = 0, 0.0
        for turn in range(count):
            path.write_bytes(spoil(whole, source))
            start = time.process_time()
            fault = fault_of(read, path)
            seconds = time.process_time() - start
            slowest = max(slowest, seconds)
            if seconds > SLOWEST:
                fault = f"took {seconds:.1f} s"
            accepted += fault is None
            if fault:
                kept = path.with_name(f"{path.name}-{seed}-{turn}")
                kept.write_bytes(path.read_bytes())
                failures.append(f"{kept}: {fault}")
        summary[kind] = f"{count} files, {accepted} read, slowest {slowest:.2f} s"
    return summary, failures


def fault_of(read: Callable[[Path], object], path: Path) -> str | None:
    """None if the file was read, "" if it was refused as it should be, else what went wrong."""
    try:
        read(path)
    except AscsegError as error:
        text = error.message + error.hint
        return "" if text.isprintable() and len(text) < 2000 else f"says {text[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    count, seed = (int(argument) for argument in (sys.argv[1:] + ["1000", "0"][len(sys.argv) - 1 :])[:2])
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-weights-"))
    summary, failures = fuzz(count, seed, folder)
    for kind, words in summary.items():
        print(f"{kind:20} {words}")
    print("\n".join(failures) or "no failure")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
