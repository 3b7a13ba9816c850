"""Writes a model card for each released weights file, and the tables of weights and scores in README.md.

    python docs/generate_cards.py

All of it comes from weights_manifest.toml and the metadata inside the files, so that no figure is typed by hand.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Score
from ascseg_cli.weights.manifest import Entry, Manifest, manifest_path, read_manifest
from ascseg_cli.weights.store import shipped_path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CARDS = ROOT / "docs" / "cards"
MAKE = "python docs/generate_cards.py"
SHOWS = {
    "isic2017": ("ISIC 2017", "skin lesions in dermoscopy"),
    "isic2018": ("ISIC 2018", "skin lesions in dermoscopy"),
    "ph2": ("PH²", "skin lesions in dermoscopy"),
    "kvasir": ("Kvasir-SEG", "polyps in colonoscopy"),
    "busi": ("BUSI", "tumours in breast ultrasound"),
}
METRICS = {"pooled_iou": "pooled IoU", "mean_dice": "mean Dice"}
MEANING = (
    "Pooled IoU is one figure over all pixels of all images, so that large lesions weigh more; mean Dice is the "
    "mean over images."
)
RESEARCH = "For research. Not a medical device."


def weights_table(manifest: Manifest) -> str:
    """Every name that the manifest knows."""
    lines = ["| `--dataset` | images | weights | terms of the data set |", "|---|---|---|---|"]
    for entry in manifest.weights:
        title, shows = SHOWS[entry.dataset]
        card = f"[{entry.name}](docs/cards/{entry.name}.md), shipped" if entry.released else "not released yet"
        lines.append(f"| `{entry.dataset}` | {shows} ({title}) | {card} | {entry.licence} |")
    return "\n".join(lines)


def scores_table(manifest: Manifest) -> str:
    """The scores of every released file under the product's own rule, with their protocol in words."""
    released = [entry for entry in manifest.weights if entry.released]
    lines = ["| weights | part | images | pooled IoU | mean Dice | threshold |", "|---|---|---|---|---|---|"]
    protocols = set()
    for entry in released:
        chosen = headline(entry)
        protocols |= {without_threshold(score.protocol) for score in chosen.values()}
        first = next(iter(chosen.values()))
        figures = " | ".join(f"{chosen[metric].value:.3f}" for metric in METRICS)
        lines.append(f"| {entry.name} | {first.part} | {first.images} | {figures} | {entry.threshold:g} |")
    assert len(protocols) <= 1, f"scores of different protocols in one table: {protocols}"
    words = [
        f"Measured on the part named in the table: {protocol}." if (protocol := next(iter(protocols), "")) else "",
        MEANING,
        "The validation images were never trained on, but the threshold was chosen on them: expect a little less "
        "on new images of the same source. Scores in the literature are often pooled differently, or taken on "
        "splits that share images between training and test; don't compare across protocols.",
    ]
    return "\n".join([*lines, "", textwrap.fill(" ".join(filter(None, words)), 120)])


def headline(entry: Entry) -> dict[str, Score]:
    """By metric the score at the file's own threshold and at the images' own sizes."""
    wanted = f"threshold {entry.threshold:g}, at the images' own sizes"
    found = {score.metric: score for score in entry.scores or () if wanted in score.protocol}
    assert found.keys() == METRICS.keys(), f"{entry.name} has no score for: {wanted}"
    return found


def without_threshold(protocol: str) -> str:
    return ", ".join(part for part in protocol.split(", ") if not part.startswith("threshold "))


def card(entry: Entry, metadata: Metadata) -> str:
    """The page on one weights file."""
    title, shows = SHOWS[entry.dataset]
    rule = metadata.preprocessing
    size = f"{rule.size[0]}×{rule.size[1]} px"
    return "\n".join(
        [
            f"# {entry.name}",
            "",
            f"Made by `{MAKE}` from the weights file itself. {RESEARCH}",
            "",
            f"Segments {shows}. Trained on {title} alone.",
            "",
            f"    ascseg predict FOLDER --dataset {entry.dataset}",
            "",
            "| | |",
            "|---|---|",
            f"| file | `{entry.file}`, {entry.size:,} bytes, SHA-256 `{entry.sha256}` |",
            f"| network | ASC-Seg {metadata.variant}, channels {', '.join(map(str, metadata.channels))} |",
            f"| input | `{rule.rule}` to {size}, mean {numbers(rule.mean)}, std {numbers(rule.std)} of 0..1 |",
            f"| threshold | {metadata.threshold:g} |",
            f"| terms | {metadata.licence} |",
            f"| cite | {metadata.citation} |",
            f"| source | {metadata.source} |",
            "",
            "## Scores",
            "",
            "| part | images | metric | value | protocol |",
            "|---|---|---|---|---|",
            *(
                f"| {s.part} | {s.images} | {METRICS.get(s.metric, s.metric)} | {s.value:.4f} | {s.protocol} |"
                for s in metadata.scores
            ),
            "",
            MEANING,
            "",
            "## Made from",
            "",
            *facts("split", metadata.split),
            *facts("training", metadata.training),
            "## Limits",
            "",
            "- It knows the images of one data set. On those of other clinics and devices expect less.",
            "- It marks something on images that show nothing of the kind, and misses some of what is there.",
            f"- What is a few pixels wide once the image is squeezed to {size} is lost.",
            "- Its probabilities are not calibrated.",
            "",
        ]
    )


def facts(heading: str, known: dict[str, Any]) -> list[str]:
    """A table of what the metadata say under one key."""
    rows = [f"| {key} | {words(value)} |" for key, value in known.items() if value is not None]
    return [f"| {heading} | |", "|---|---|", *rows, ""]


def words(value: Any) -> str:
    """A value of the metadata in one line of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(inner)}" for key, inner in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "/")


def numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def readme(current: str, manifest: Manifest) -> str:
    """README.md with both tables renewed."""
    for name, text in (("weights", weights_table(manifest)), ("scores", scores_table(manifest))):
        begin, end = f"<!-- {name}: {MAKE} -->\n", f"<!-- end of {name} -->"
        before, mark, rest = current.partition(begin)
        _, last, after = rest.partition(end)
        assert mark, f"README.md has lost its mark {begin}"
        assert last, f"README.md has lost its mark {end}"
        current = f"{before}{begin}\n{text}\n\n{end}{after}"
    return current


def cards(manifest: Manifest) -> dict[str, str]:
    """File name -> text of every card."""
    released = (entry for entry in manifest.weights if entry.released)
    return {f"{e.name}.md": card(e, checkpoint.read_metadata(shipped_path(e))) for e in released}


if __name__ == "__main__":
    known = read_manifest(manifest_path())
    CARDS.mkdir(exist_ok=True)
    for name, text in cards(known).items():
        (CARDS / name).write_text(text, encoding="utf-8", newline="\n")
    README.write_text(readme(README.read_text(encoding="utf-8"), known), encoding="utf-8", newline="\n")
