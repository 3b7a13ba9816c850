"""model_card.md: what a user of one's own weights must know, from the metadata that lie inside the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ascseg_cli.network.metadata import Metadata

_METRICS = {"pooled_iou": "pooled IoU", "mean_dice": "mean Dice"}


def text(metadata: Metadata, file: str, sha256: str) -> str:
    """The card of a weights file just written.

    file    its name, beside which the card lies
    sha256  of the file
    """
    return "\n".join([*_head(metadata, file, sha256), *_scores(metadata), *_origin(metadata), *_limits(metadata)])


def _head(metadata: Metadata, file: str, sha256: str) -> Iterator[str]:
    rule = metadata.preprocessing
    yield from (f"# {metadata.name}", "", "For research. Not a medical device.", "")
    yield from (f"    ascseg predict FOLDER --weights {file}", "")
    yield from ("| | |", "|---|---|")
    yield f"| file | `{file}`, SHA-256 `{sha256}` |"
    yield f"| network | ASC-Seg {metadata.variant}, channels {', '.join(map(str, metadata.channels))} |"
    size = f"{rule.size[0]}×{rule.size[1]} px"
    yield f"| input | `{rule.rule}` to {size}, mean {_value(rule.mean)}, std {_value(rule.std)} of 0..1 |"
    yield f"| threshold | {metadata.threshold:g}, chosen on the validation part |"
    for name in ("licence", "citation", "source"):
        yield f"| {name} | {_value(getattr(metadata, name) or 'not stated: the data are yours')} |"
    yield ""


def _scores(metadata: Metadata) -> Iterator[str]:
    yield from ("## Scores", "", "| part | images | metric | value | protocol |", "|---|---|---|---|---|")
    for s in metadata.scores:
        yield f"| {s.part} | {s.images} | {_METRICS.get(s.metric, s.metric)} | {s.value:.4f} | {s.protocol} |"
    calibration = (metadata.model_extra or {}).get("calibration", {})
    yield from (
        "",
        "Pooled IoU is one figure over all pixels of all images, so that large lesions weigh more; mean Dice is "
        "the mean over images. The validation images were not trained on, but the threshold was chosen on them.",
        "",
    )
    if calibration:
        before, after = (calibration[f"cross_entropy_{when}"] for when in ("before", "after"))
        yield (
            "Calibrated on the validation part, a probability p is "
            f"sigmoid(logit(p) / {calibration['temperature']:g}): "
            f"cross-entropy {before:.4f} before, {after:.4f} after. `ascseg predict` writes p as it is."
        )
        yield ""


def _origin(metadata: Metadata) -> Iterator[str]:
    yield from ("## Made from", "")
    for name, facts in (("split", metadata.split), ("training", metadata.training)):
        yield from (
            f"| {name} | |",
            "|---|---|",
            *_rows(facts),
            "",
        )


def _limits(metadata: Metadata) -> Iterator[str]:
    width, height = metadata.preprocessing.size
    yield from (
        "## Limits",
        "",
        "- It knows the images of one data set. On those of other clinics and devices expect less.",
        "- It may mark something on images that show nothing of the kind, and miss some of what is there.",
        f"- What is a few pixels wide once the image is squeezed to {width}×{height} px is lost.",
        "",
    )


def _rows(facts: Mapping[str, Any]) -> list[str]:
    return [f"| {key} | {_value(value)} |" for key, value in facts.items() if value is not None]


def _value(value: Any) -> str:
    """A value in one cell of a table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, (tuple, list)):
        return " ".join(_value(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")
