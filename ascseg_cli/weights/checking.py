"""What `ascseg weights verify` finds: a file's hash against the manifest, and its content against itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.errors import WeightsError
from ascseg_cli.network import checkpoint, exported
from ascseg_cli.network.metadata import Metadata
from ascseg_cli.weights.manifest import Entry, load_manifest
from ascseg_cli.weights.store import look_up, mismatch, missing


@dataclass(frozen=True)
class Check:
    """One verified name or file, and in words what was found."""

    name: str
    good: bool
    words: str


def check_weights(names: Iterable[str]) -> list[Check]:
    """Check names of the manifest and weights files; without any, all entries that are on this machine.

    Raises WeightsError for what is neither a known name nor a file, and where there is nothing to check.
    """
    manifest = load_manifest()
    wanted = list(names)
    if not wanted:
        here = [entry for entry in manifest.weights if look_up(entry)[1] is not None]
        if not here:
            raise WeightsError(
                "no weights are on this machine, so there is nothing to verify", "run: ascseg weights list"
            )
        return [_check_entry(entry) for entry in here]
    return [_check_file(name) if _is_file(name) else _check_entry(manifest.find(name)) for name in wanted]


def _is_file(name: str) -> bool:
    path = Path(name)
    return path.suffix != "" or len(path.parts) > 1 or path.is_file()


def _check_entry(entry: Entry) -> Check:
    state, path = look_up(entry)
    if path is None:
        return Check(entry.name, False, missing(entry, state, path).message)
    if state == "damaged":
        return Check(entry.name, False, f"{path}: {mismatch(path, entry)}")
    return Check(entry.name, *_content(path, entry))


def _check_file(name: str) -> Check:
    """A file is held to the manifest's entry of its hash, or of its name; others are checked by themselves."""
    path = Path(name)
    good, words = _content(path, None)
    entry = next((entry for entry in load_manifest().weights if entry.file == path.name), None)
    if good and entry is not None and (fault := mismatch(path, entry)):
        return Check(name, False, f"it is named like {entry.name}, but {fault}")
    return Check(name, good, words)


def _content(path: Path, entry: Entry | None) -> tuple[bool, str]:
    """Whether a file is a whole weights file, and agrees with its entry; what it is, in words."""
    try:
        if exported.is_exported(path):
            return True, _origin(path, exported.read(path))
        content = checkpoint.read(path)
    except WeightsError as error:
        return False, error.message
    faults = differences(content.metadata, entry) if entry else []
    if faults:
        return False, f"{path} contradicts the manifest in {', '.join(faults)}"
    origin = "as in the manifest" if entry else "not in the manifest, so its content alone was checked"
    channels = ", ".join(map(str, content.metadata.channels))
    return True, f"{path}: whole, {origin}; channels {channels}; sha256 {content.sha256}"


def _origin(path: Path, file: exported.Exported) -> str:
    record = file.record
    state = "whole" if record.graph_sha256 else "readable; it keeps no hash of its graph"
    source = f"exported from {file.metadata.name}, weights of sha256 {record.weights_sha256}"
    return f"{path}: {state}; {source}; sha256 {file.sha256}"


def differences(metadata: Metadata, entry: Entry) -> list[str]:
    """The keys in which a file's metadata and its manifest entry differ."""
    here = metadata.model_dump(mode="json", exclude_none=True)
    there = entry.model_dump(mode="json", exclude_none=True)
    keys = ("dataset", "variant", "licence", "citation", "split", "preprocessing", "threshold", "scores")
    return [key for key in keys if here.get(key) != there.get(key)]
