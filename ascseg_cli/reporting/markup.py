"""The pieces of HTML that both reports are made of; every text that comes from outside goes through `shown`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ascseg_cli.reporting.album import Drawing
from ascseg_cli.reporting.words import shown


def section(key: str, title: str, *body: str) -> str:
    """A part of the page with a heading, which links can lead to; nothing where it has no body."""
    content = "\n".join(part for part in body if part)
    return f'<section id="{key}">\n<h2>{shown(title)}</h2>\n{content}\n</section>\n' if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """Plain words."""
    return f"<p{_class(kind)}>{shown(text)}</p>" if text else ""


def warning(title: str, lines: Iterable[str]) -> str:
    """Something that a reader of the figures must know first."""
    points = "".join(f"<li>{shown(line)}</li>" for line in lines)
    return f'<div class="warning" role="note"><strong>{shown(title)}</strong><ul>{points}</ul></div>'


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """The few figures that come first: label, value, and words below."""
    found = "".join(
        f"<div><dt>{shown(label)}</dt><dd><b>{shown(value)}</b><span>{shown(below)}</span></dd></div>"
        for label, value, below in entries
    )
    return f'<dl class="tiles">{found}</dl>'


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[int] = (0,)
) -> str:
    """A table of ready HTML cells whose first is the row's heading.

    words  columns that hold text, set flush left; the others hold figures
    """
    kinds = ["" if i in words else "figure" for i in range(len(heads))]
    top = "".join(f'<th scope="col"{_class(kind)}>{shown(head)}</th>' for head, kind in zip(heads, kinds))
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{_class(kind)}>{cell}</td>" for cell, kind in zip(rest, kinds[1:]))
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><caption><span>{shown(caption)}</span></caption>'
        f"<thead><tr>{top}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def facts(entries: Iterable[tuple[str, object]]) -> str:
    """What the figures depend on, name by name."""
    return "<dl>" + "".join(f"<div><dt>{shown(k)}</dt><dd>{shown(v)}</dd></div>" for k, v in entries) + "</dl>"


def chart(svg: str, title: str, words: str = "") -> str:
    """A chart with what it shows."""
    return f"<figure><figcaption><b>{shown(title)}</b> {shown(words)}</figcaption>{svg}</figure>"


def grid(parts: Iterable[str], kind: str) -> str:
    """Things side by side, as many as fit."""
    return f'<div class="{kind}">{"".join(parts)}</div>'


def case(name: str, words: str, drawing: Drawing | None) -> str:
    """One image with its outlines, its name and what is to be said of it."""
    folder, slash, last = name.rpartition("/")
    told = f"<b><small>{shown(folder + slash)}</small>{shown(last)}</b>"
    caption = f"<figcaption>{told}<span>{shown(words)}</span></figcaption>"
    return f'<figure class="case">{"" if drawing is None else _picture(drawing, name)}{caption}</figure>'


def _picture(drawing: Drawing, name: str) -> str:
    size = f'width="{drawing.width}" height="{drawing.height}"'
    image = f'<img src="{drawing.picture}" {size} alt="{shown(name)}">' if drawing.picture else ""
    lines = "".join(
        f'<g class="{kind}"><path class="under" d="{path}"/><path d="{path}"/></g>'
        for kind, path in (("truth", drawing.truth), ("pred", drawing.pred))
        if path
    )
    box = f'viewBox="0 0 {drawing.width} {drawing.height}"'
    return f'<div class="picture">{image}<svg {box} {size} aria-hidden="true">{lines}</svg></div>'


def legend(*, truth: bool, masks_alone: bool) -> str:
    """Which line is which."""
    entries = [("truth", "truth: solid")] * truth + [("pred", "prediction: dashed")]
    lines = "".join(
        f'<span><svg viewBox="0 0 44 12" width="44" height="12" aria-hidden="true"><g class="{kind}">'
        f'<path class="under" d="M3 6H41"/><path d="M3 6H41"/></g></svg>{shown(words)}</span>'
        for kind, words in entries
    )
    greys = "Without a photograph: light grey is truth alone, dark grey prediction alone, mid grey both."
    return f'<p class="legend">{lines}{greys * masks_alone}</p>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
