"""Text that can't act on whoever shows it: names of files may hold anything."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
