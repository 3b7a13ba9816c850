"""Names that people type and files carry: the nearest known one, and a form that is safe to print."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_SHOWN = 80


def printable(text: object) -> str:
    """`text` on one line of at most 80 characters, none of them a control: hostile files choose names."""
    short = str(text)[: LONGEST_SHOWN + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in short)
    return shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 1] + "…"


def first_few(names: Iterable[str], most: int = 3) -> str:
    """The first `most` names and how many there are in all: "a, b, c … (12 in all)"."""
    every = list(names)
    few = ", ".join(printable(name) for name in every[:most])
    return few if len(every) <= most else f"{few} … ({len(every)} in all)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, or all of them if none is near."""
    every = list(known)
    near = difflib.get_close_matches(name.casefold(), every, n=1)
    return f"did you mean {near[0]}?" if near else f"known names: {', '.join(every)}"
