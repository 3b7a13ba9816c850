"""Who may write into an output folder: a new run into an empty one, another only if the user says so.

--resume     goes on with an earlier run of ours
--overwrite  removes what earlier runs of ours wrote, and nothing else
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.inference import journal
from ascseg_cli.inference.outputs import SUFFIXES, TEMPORARY, OutputFolder, as_output_error

RESULTS = "results.csv"
RUN = "run.json"


def check(folder: Path, mode: str) -> None:
    """Raise UsageError where a run in `mode` (new, resume, overwrite) may not write into `folder`."""
    with as_output_error(folder):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file; --output must be a folder")
        present = [path.name for path in folder.iterdir() if not _is_remainder(path)]
    if not present or mode == "overwrite":
        return
    ours = journal.NAME in present or RUN in present
    if mode == "new":
        way = (
            "--resume goes on with it, --overwrite starts afresh"
            if ours
            else "--overwrite writes into it all the same"
        )
        raise UsageError(f"{folder} isn't empty", f"{way}; or give another --output")
    if not ours:
        raise UsageError(
            f"{folder} isn't empty and holds no earlier run to resume",
            "--overwrite writes into it all the same; or give another --output",
        )


def _is_remainder(path: Path) -> bool:
    """What a run leaves that ended before its first image."""
    return path.match(TEMPORARY.format("*")) or (path.name == journal.NAME and path.stat().st_size == 0)


def clear(outputs: OutputFolder) -> None:
    """Remove what earlier runs wrote, but for the journal: the outputs it names, the records, folders left empty.

    Raises OutputError.
    """
    folders = set()
    for record in journal.records(outputs.root):
        for place in _places(outputs, record.get("outputs")):
            with as_output_error(place):
                place.unlink(missing_ok=True)
            folders |= set(place.parents) - set(outputs.root.parents) - {outputs.root}
    for name in (RESULTS, RUN):
        with as_output_error(outputs.root / name):
            (outputs.root / name).unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _places(outputs: OutputFolder, named: object) -> list[Path]:
    """The files that a record names, if of the form that we write: a journal may have been tampered with."""
    places = []
    for kind, text in named.items() if isinstance(named, dict) else ():
        suffix = SUFFIXES.get(kind)
        if suffix and isinstance(text, str) and text.startswith(f"{kind}/") and text.endswith(suffix):
            with contextlib.suppress(OutputError):
                places.append(outputs.path(kind, text[len(kind) + 1 : -len(suffix)]))
    return places
