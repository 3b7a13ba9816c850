"""Folders in an object store, looked through by the rules that hold for folders of this machine (`tree.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ascseg_cli.data.remote import RemotePath, keys_below
from ascseg_cli.data.tree import EVERY, IMAGE_SUFFIXES, suffix

_MARKS = ("run.json", "results.csv")


@dataclass
class RemoteFolder:
    """What a folder holds.

    images           relative names, in no special order
    ignored          other objects, by suffix
    hidden           names that begin with a dot; what lies below one counts once
    earlier_outputs  folders with results of an earlier run
    """

    images: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    earlier_outputs: list[str] = field(default_factory=list)


def look_through(root: RemotePath, output: RemotePath | None, watch: Callable[[int], None]) -> RemoteFolder:
    """Every object below `root`, but for those in `output`. Raises StoreError; FileNotFoundError: no bucket.

    watch  called now and then with the number of images found so far
    """
    found = RemoteFolder()
    within = f"{output.key[len(root.key) :].lstrip('/')}/" if output and output.is_within(root) else None
    marks: dict[str, set[str]] = {}
    others: list[str] = []
    hidden_before = ""
    for name in keys_below(root):
        if within and name.startswith(within):
            continue
        if hidden := _hidden_part(name):
            found.hidden += hidden != hidden_before
            hidden_before = hidden
        elif name.endswith("/"):
            continue  # marks an empty folder
        elif suffix(name) in IMAGE_SUFFIXES:
            found.images.append(name)
            if len(found.images) % EVERY == 0:
                watch(len(found.images))
        else:
            others.append(name)
            folder, _, last = name.rpartition("/")
            if last in _MARKS:
                marks.setdefault(folder, set()).add(last)
    _leave_out_outputs(found, others, marks)
    return found


def _leave_out_outputs(found: RemoteFolder, others: list[str], marks: dict[str, set[str]]) -> None:
    outputs = tuple(
        f"{folder}/"
        for folder, names in marks.items()
        if folder and "run.json" in names and (folder.endswith("_ascseg") or "results.csv" in names)
    )
    if outputs:
        found.images = [name for name in found.images if not name.startswith(outputs)]
        others = [name for name in others if not name.startswith(outputs)]
    found.earlier_outputs = sorted(folder.rstrip("/") for folder in outputs)
    found.ignored.update(map(suffix, others))


def _hidden_part(name: str) -> str:
    """The name up to its first part that begins with a dot; empty where none does."""
    parts = name.split("/")
    for count, part in enumerate(parts, 1):
        if part.startswith("."):
            return "/".join(parts[:count])
    return ""
