"""Who may write into an output folder: a new run into an empty one, another only if the user says so.

--resume     goes on with an earlier run of ours
--overwrite  removes what earlier runs of ours wrote, and nothing else
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.inference.destination import Destination
from ascseg_cli.inference.outputs import JOURNAL, SUFFIXES

RESULTS = "results.csv"
RUN = "run.json"


def check(outputs: Destination, mode: str) -> None:
    """Raise UsageError where a run in `mode` (new, resume, overwrite) may not write there."""
    present = outputs.entries()
    if not present or mode == "overwrite":
        return
    ours = JOURNAL in present or RUN in present
    if mode == "new":
        way = (
            "--resume goes on with it, --overwrite starts afresh"
            if ours
            else "--overwrite writes into it all the same"
        )
        raise UsageError(f"{outputs} isn't empty", f"{way}; or give another --output")
    if not ours:
        raise UsageError(
            f"{outputs} isn't empty and holds no earlier run to resume",
            "--overwrite writes into it all the same; or give another --output",
        )


def clear(outputs: Destination, records: Iterable[dict[str, Any]]) -> None:
    """Remove what earlier runs wrote, but for the journal: the outputs its records name, and the other two files.

    Raises OutputError.
    """
    places = {place: None for record in records for place in _places(outputs, record.get("outputs"))}
    outputs.remove([*places, outputs.root / RESULTS, outputs.root / RUN])


def _places(outputs: Destination, named: object) -> list[Path]:
    """The files that a record names, if of the form that we write: a journal may have been tampered with."""
    places = []
    for kind, text in named.items() if isinstance(named, dict) else ():
        suffix = SUFFIXES.get(kind)
        if suffix and isinstance(text, str) and text.startswith(f"{kind}/") and text.endswith(suffix):
            with contextlib.suppress(OutputError):
                places.append(outputs.path(kind, text[len(kind) + 1 : -len(suffix)]))
    return places
