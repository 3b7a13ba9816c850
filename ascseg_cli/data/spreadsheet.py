"""CSV that spreadsheets open without harm: a cell that begins like a formula would be run as one."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"[=+\-@\t\r\n|%]")


def harmless(text: str, before: str) -> str:
    """The text, with `before` in front where a spreadsheet would take it for a formula."""
    return before + text if _FORMULA.match(text) else text
