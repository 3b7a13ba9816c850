"""Writes a weights file's facts into weights_manifest.toml, for whoever releases weights.

Run in a source checkout:  python -m ascseg_cli.weights.entry ascseg_cli/weights/files/kvasir-tiny.safetensors
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from ascseg_cli.errors import AscsegError, WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.weights.manifest import Entry, manifest_path, parse_manifest, read_manifest

_HEADER = "[[weights]]"


def entry_of(path: Path, known: dict[str, Entry]) -> dict[str, Any]:
    """The manifest entry of a weights file, from its own metadata.

    known  the manifest's entries by name: `default`, and URLs if the content is the same, are kept
    Raises WeightsError where the file is damaged, or its metadata name no data set, licence or citation.
    """
    content = checkpoint.read(path)
    metadata = content.metadata
    for key in ("dataset", "licence", "citation"):
        if not getattr(metadata, key):
            raise WeightsError(f"{path}: its metadata lack {key}, which a released file must have")
    name = f"{metadata.dataset}-{metadata.variant}"
    old = known.get(name)
    facts = metadata.model_dump(mode="json", include={"licence", "citation", "split", "preprocessing", "scores"})
    return {
        "name": name,
        "dataset": metadata.dataset,
        "variant": metadata.variant,
        "default": old.default if old else all(e.dataset != metadata.dataset for e in known.values()),
        "licence": facts.pop("licence"),
        "citation": facts.pop("citation"),
        "file": path.name,
        "size": path.stat().st_size,
        "sha256": content.sha256,
        "urls": old.urls if old and old.sha256 == content.sha256 else [],
        "threshold": metadata.threshold,
        **facts,
    }


def entry_text(entry: dict[str, Any]) -> str:
    """An entry as TOML: one line a key, its scores one line each."""
    lines = [_HEADER, *(f"{key} = {_toml(value)}" for key, value in entry.items() if key != "scores")]
    scores = "".join(f"\n    {_toml(score)}," for score in entry["scores"])
    return "\n".join([*lines, f"scores = [{scores}\n]" if scores else "scores = []"]) + "\n"


def _toml(value: Any) -> str:
    """A value in TOML, whose strings, numbers and truth values are written as JSON's; null has no place in it."""
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inside} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def replaced(text: str, name: str, block: str) -> str:
    """The manifest's text with the entry of this name exchanged for `block`, or `block` at its end."""
    start = re.search(rf'^\[\[weights\]\]\nname = "{re.escape(name)}"\n', text, re.MULTILINE)
    if not start:
        return f"{text.rstrip()}\n\n{block}"
    after = text.find(f"\n{_HEADER}\n", start.end())
    rest = text[after:] if after >= 0 else ""
    return text[: start.start()] + block + rest


def write_entries(manifest: Path, files: list[Path]) -> list[str]:
    """Put the files' entries into a manifest, checked as a whole before it is replaced; returns their names."""
    known = {entry.name: entry for entry in read_manifest(manifest).weights}
    text = manifest.read_text(encoding="utf-8")
    entries = [entry_of(path, known) for path in files]
    for entry in entries:
        text = replaced(text, entry["name"], entry_text(entry))
    parse_manifest(text, str(manifest))
    handle, temporary = tempfile.mkstemp(dir=manifest.parent, prefix=f".{manifest.name}.")
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    os.chmod(temporary, manifest.stat().st_mode)
    os.replace(temporary, manifest)
    return [entry["name"] for entry in entries]


if __name__ == "__main__":
    try:
        names = write_entries(manifest_path(), [Path(argument) for argument in sys.argv[1:]])
    except AscsegError as error:
        sys.exit(f"error: {error.message}")
    sys.stderr.write(f"{manifest_path()}: {', '.join(names) or 'nothing'} written\n")
