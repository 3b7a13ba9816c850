"""The page beside an exported file: what it takes and gives, where it comes from, and how it was compared."""

from __future__ import annotations

from collections.abc import Iterator

from ascseg_cli import __version__
from ascseg_cli.exporting.comparison import Verdict
from ascseg_cli.graphs.form import Form
from ascseg_cli.network.checkpoint import Checkpoint


def text(checkpoint: Checkpoint, form: Form, file: str, sha256: str, verdict: Verdict) -> str:
    """The card of the file of that name and hash."""
    parts = (
        _head(checkpoint, form, file, sha256),
        _use(checkpoint, form, file),
        _comparison(verdict),
        _limits(form),
    )
    return "\n".join(line for part in parts for line in part)


def _head(checkpoint: Checkpoint, form: Form, file: str, sha256: str) -> Iterator[str]:
    what = checkpoint.metadata
    yield from (f"# {file}", "", "For research. Not a medical device.", "", "| | |", "|---|---|")
    facts = {
        "file": f"SHA-256 `{sha256}`",
        "weights": f"{what.name}, SHA-256 `{checkpoint.sha256}`",
        "network": f"ASC-Seg {what.variant}, channels {', '.join(map(str, what.channels))}",
        "data set": what.dataset or "not stated",
        "licence": what.licence or "not stated",
        "citation": what.citation or "not stated",
        "threshold": f"{what.threshold:g}",
        "precision": form.precision,
        "written by": f"ascseg {__version__}" + (f", ONNX opset {form.opset}" if file.endswith(".onnx") else ""),
    }
    yield from (f"| {name} | {_cell(value)} |" for name, value in facts.items())
    yield ""


def _use(checkpoint: Checkpoint, form: Form, file: str) -> Iterator[str]:
    how = checkpoint.metadata.preprocessing
    size = "×".join(map(str, form.static)) if form.static else "h, w"
    numbers = f"mean {_list(how.mean)}, std {_list(how.std)} of 0..1"
    yield from ("## In and out", "")
    if form.core_only:
        yield f"- `image`: float32 (b, 3, {size}), prepared by the rule `{how.rule}`, {numbers}; the network"
        yield f"  was trained at {how.size[0]}×{how.size[1]}. Sizes that are no multiples of 16 are padded inside."
    else:
        yield f"- `image`: uint8 (b, {size}, 3), RGB, 0 to 255, upright. Inside, the rule `{how.rule}` to"
        yield f"  {how.size[0]}×{how.size[1]} px, {numbers}."
    yield "- `probability`: float32, 0 to 1, one for each pixel of the image."
    yield f"- `mask`: uint8, 1 where probability ≥ {checkpoint.metadata.threshold:g}, else 0."
    yield ""
    yield from _example(form, file)


def _example(form: Form, file: str) -> Iterator[str]:
    if not file.endswith(".onnx"):
        yield f'    probability, mask = torch.export.load("{file}").module()(image)'
    else:
        yield f'    session = onnxruntime.InferenceSession("{file}")'
        yield '    probability, mask = session.run(None, {"image": image})'
    yield ""


def _comparison(verdict: Verdict) -> Iterator[str]:
    allowed = verdict.limits
    yield from ("## Compared with ascseg predict", "")
    yield f"Run in a process of its own by {verdict.runtime}. Allowed were a difference of {allowed.difference:g}"
    yield f"and {allowed.changed:.2%} of the mask pixels."
    yield ""
    head, *rows = verdict.table()
    yield from (f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    yield ""


def _limits(form: Form) -> Iterator[str]:
    yield from ("## Limits", "", "- The weights know the images of one data set; on others expect less.")
    if form.static:
        yield "- Images of any other size are refused."
    yield ""


def _list(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _cell(value: str) -> str:
    return value.replace("|", "/").replace("\n", " ")
