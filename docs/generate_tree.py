"""Writes the tree of the package into CONTRIBUTING.md, from the first line of each file's docstring.

python docs/generate_tree.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "ascseg_cli"
BEGIN, END = "<!-- tree: python docs/generate_tree.py -->\n", "<!-- end of tree -->\n"
COLUMN = 28


def tree(folder: Path = PACKAGE, depth: int = 0, levels: int = 2) -> Iterator[str]:
    """One line a file or folder: its name, indented, and what it is for. Deeper folders are one line each."""
    yield line(f"{folder.name}/", folder / "__init__.py", depth)
    if depth == levels:
        return
    entries = [
        path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__pycache__", "__init__"))
    ]
    for path in sorted(entries, key=lambda path: path.is_dir()):
        if path.is_dir():
            yield from tree(path, depth + 1, levels)
        elif path.suffix == ".py":
            yield line(path.name, path, depth + 1)


def line(name: str, described: Path, depth: int) -> str:
    return f"{'  ' * depth + name:{COLUMN}} {purpose(described)}".rstrip()


def purpose(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else None
    first = re.split(r"[.;] |\.$", (text or "").partition("\n")[0], maxsplit=1)[0]
    return first.strip(" .")


def block() -> str:
    """The tree between its marks."""
    return f"{BEGIN}```text\n" + "\n".join(tree()) + f"\n```\n{END}"


def page(current: str) -> str:
    """The page with the tree renewed."""
    before, _, rest = current.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, "CONTRIBUTING.md has lost the marks around its tree"
    return before + block() + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
