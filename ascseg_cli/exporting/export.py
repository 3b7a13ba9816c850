"""Exports weights: writes the file, tries it, and lets it take its place only if it gives predict's results."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascseg_cli.errors import MissingExtraError, UsageError
from ascseg_cli.exporting import card
from ascseg_cli.exporting.comparison import Verdict
from ascseg_cli.exporting.pictures import Picture, pictures
from ascseg_cli.exporting.verification import room_for_trial, verify
from ascseg_cli.graphs.form import Form, record, texts
from ascseg_cli.network.checkpoint import Checkpoint, read
from ascseg_cli.network.exported import is_exported
from ascseg_cli.whole_file import write_whole

WRITERS = {"onnx": "ascseg_cli.graphs.to_onnx.file", "pt2": "ascseg_cli.graphs.to_torch.file"}


@dataclass(frozen=True)
class Exported:
    """The written file, and everything that was found out about it."""

    path: Path
    sha256: str
    size: int
    form: Form
    checkpoint: Checkpoint
    verdict: Verdict

    def facts(self) -> dict[str, Any]:
        """The report, for JSON."""
        hashes = {"graph_sha256", "metadata_sha256"}
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "bytes": self.size,
            "weights": self.checkpoint.metadata.name,
            **record(self.checkpoint, self.form).model_dump(mode="json", exclude=hashes),
            **self.verdict.facts(),
        }


def check_format(name: str) -> None:
    """Raise UsageError for an unknown format, MissingExtraError where its packages aren't installed."""
    if name not in WRITERS:
        raise UsageError(f"format {name!r} is unknown", f"choose {' or '.join(WRITERS)}")
    if name == "onnx" and not all(importlib.util.find_spec(needed) for needed in ("onnx", "onnxruntime")):
        raise MissingExtraError("--format onnx", "export")


def export(
    weights: Path,
    kind: str,
    form: Form,
    *,
    output: Path | None,
    images: Path | None,
    overwrite: bool,
    note: Callable[[str], None],
) -> Exported:
    """Write the file, its card `.md` and its report `.json`, or nothing.

    kind    onnx or pt2
    output  None: named after the weights, in the current folder
    images  what to compare on; None: the shipped examples
    note    is told what a user should know meanwhile
    Raises UsageError, MissingExtraError, WeightsError, OutputError, and ExportError where the file isn't as good.
    """
    check_format(kind)
    if is_exported(weights):
        raise UsageError(f"{weights} is an exported file already", "give the weights that it was made from")
    checkpoint = read(weights)
    path = output or Path(default_name(checkpoint, kind, form))
    _check_output(path, kind, overwrite)
    shown = pictures(images, note)
    content = importlib.import_module(WRITERS[kind]).content(checkpoint, form, texts(checkpoint, form))
    verdict = _tried(content, kind, checkpoint, form, shown)
    verdict.check()
    sha256 = hashlib.sha256(content).hexdigest()
    done = Exported(path, sha256, len(content), form, checkpoint, verdict)
    page = card.text(checkpoint, form, path.name, sha256, verdict)
    report = json.dumps(done.facts(), indent=2, ensure_ascii=False) + "\n"
    _write({beside(path, "md"): page.encode(), beside(path, "json"): report.encode(), path: content})
    return done


def default_name(checkpoint: Checkpoint, kind: str, form: Form) -> str:
    """`kvasir-tiny.onnx`, with what is special about the file before the point."""
    words = [Path(checkpoint.metadata.name).name or "weights"]
    words += ["core"] * form.core_only + [form.precision] * (form.precision != "float32")
    words += ["x".join(map(str, form.static))] if form.static else []
    return f"{'-'.join(words)}.{kind}"


def beside(path: Path, suffix: str) -> Path:
    """`kvasir-tiny.onnx.md`."""
    return path.with_name(f"{path.name}.{suffix}")


def _check_output(path: Path, kind: str, overwrite: bool) -> None:
    if path.suffix != f".{kind}":
        raise UsageError(f"{path}: a file of this format ends in .{kind}", f"give --output {path.stem}.{kind}")
    for there in (path, beside(path, "md"), beside(path, "json")):
        if there.is_dir():
            raise UsageError(f"{there} is a folder")
        if there.exists() and not overwrite:
            raise UsageError(f"{there} exists", "give another --output, or --overwrite")


def _tried(content: bytes, kind: str, checkpoint: Checkpoint, form: Form, shown: list[Picture]) -> Verdict:
    """What comes of running the file beside predict's own engine."""
    from ascseg_cli.inference.torch_engine import TorchEngine

    engine = TorchEngine(checkpoint, device="cpu", backend="auto", precision="float32")
    with tempfile.TemporaryDirectory(prefix="ascseg-") as folder:
        file = Path(folder) / f"exported.{kind}"
        with room_for_trial(Path(folder)):
            file.write_bytes(content)
        return verify(file, engine, form, shown, Path(folder))


def _write(files: dict[Path, bytes]) -> None:
    """All files, or none of those that weren't there before."""
    with contextlib.ExitStack() as undo:
        for path, content in files.items():
            new = not path.exists()
            write_whole(path, content)
            if new:
                undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()
