"""One HTML file that holds everything: it opens by double click, and asks no network for anything.

Its policy (CSP) lets a browser load nothing but pictures inside the file, and run no script but page.js, known by
its hash: whatever a file's name may smuggle in, it is neither run nor sent anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ascseg_cli.reporting import markup
from ascseg_cli.reporting.album import Drawing
from ascseg_cli.reporting.words import shown
from ascseg_cli.whole_file import whole_file

_FILES = files("ascseg_cli.reporting")


@dataclass(frozen=True)
class Column:
    """One column of the table of images.

    words    what it holds, for the reader
    kind     "text" (the name), "choice" (a filter offers its values), "number"
    rising   whether more is better; None: neither. The first click shows the worst first
    digits   behind the point
    detail   not in the table, only beside the single picture
    """

    key: str
    label: str
    words: str = ""
    kind: str = "number"
    rising: bool | None = None
    digits: int = 3
    detail: bool = False

    def to_json(self) -> dict[str, Any]:
        """As page.js reads it."""
        return {
            "key": self.key, "label": self.label, "words": self.words, "kind": self.kind,
            "rising": self.rising, "digits": self.digits, "detail": self.detail,
        }  # fmt: skip


@dataclass(frozen=True)
class Images:
    """The table of all images.

    columns  the first is the name
    rows     a value for each column, None where undefined; and the drawing, or None; in the order of `sort`
    sort     key of the column by which they come at first, and whether it falls
    lead     key of the column whose mean is told of those that a filter leaves
    """

    columns: Sequence[Column]
    rows: Iterable[tuple[Sequence[Any], Drawing | None]]
    sort: tuple[str, bool]
    lead: str


def write(path: Path, title: str, body: Iterable[str], images: Images) -> None:
    """Write the page, whole or not at all, without ever holding all of it. Raises OutputError."""
    with whole_file(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(_pieces(title, body, images))


def images_section(title: str, words: str, legend: str = "") -> str:
    """Where page.js puts the table of all images with its filters."""
    return markup.section(
        "images",
        title,
        markup.paragraph(words),
        legend,
        "<noscript><p>The table of images needs JavaScript; everything else on this page does not.</p></noscript>",
        '<div id="table"></div>',
    )


def _pieces(title: str, body: Iterable[str], images: Images) -> Iterator[str]:
    style, script = ((_FILES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<link rel="icon" href="data:,">\n<title>{shown(title)}</title>\n<style>{style}</style>\n'
        "</head>\n<body>\n"
    )
    yield from body
    yield '<script type="application/json" id="data">'
    yield from _data(images)
    yield f"</script>\n<script>{script}</script>\n</body>\n</html>\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _data(images: Images) -> Iterator[str]:
    yield '{"columns":' + _json([column.to_json() for column in images.columns])
    yield f',"sort":{_json(images.sort)},"lead":{_json(images.lead)},"rows":['
    before = "\n"
    for values, drawing in images.rows:
        picture = drawing and [drawing.picture, drawing.width, drawing.height, drawing.pred, drawing.truth]
        yield before + _json([*values, picture])
        before = ",\n"
    yield "\n]}"


def _json(value: Any) -> str:
    """JSON that no `</script>` or `<!--` in a name can end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
