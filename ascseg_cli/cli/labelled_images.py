"""`ascseg evaluate DATA`: runs weights on a labelled folder and scores what they find, probabilities included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ascseg_cli.cli import evaluation, say
from ascseg_cli.cli.evaluation import Order
from ascseg_cli.cli.prediction import say_alone, say_engine
from ascseg_cli.data.discover import Item
from ascseg_cli.data.layouts import Dataset, open_dataset
from ascseg_cli.data.naming import output_stems
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import PARTS
from ascseg_cli.errors import DataError, GateError, UsageError
from ascseg_cli.evaluation.evaluation import without_seen
from ascseg_cli.evaluation.mask_pairs import MaskPairs
from ascseg_cli.evaluation.scoring import Scored, Unscored, Watch, score_probability
from ascseg_cli.evaluation.seen import Seen, look_up
from ascseg_cli.evaluation.table import Table
from ascseg_cli.inference.engine import Engine, open_engine, read_metadata
from ascseg_cli.inference.judging import judged
from ascseg_cli.inference.postprocess import Cleaning


@dataclass(frozen=True)
class Network:
    """The weights and how they are run. threshold: None is the weights' own."""

    weights: Path
    threshold: float | None
    tta: bool
    cleaning: Cleaning
    device: str
    backend: str
    precision: str
    batch_size: int | None


def of_weights(order: Order, network: Network, data: Path, part: str, *, strict: bool) -> int:
    """Score weights on a part of a labelled folder; returns the exit code."""
    limits = order.gates(probabilities=True)
    evaluation.check_outputs(order, network.weights)
    metadata = read_metadata(network.weights)
    named, lone = _chosen(data, part, order)
    groups = evaluation.groups_of(order.group, ((name, str(pair.image)) for name, pair in named.items()), data)
    seen = _seen(metadata.training_images, named, order, strict=strict)
    engine = open_engine(
        network.weights,
        device=network.device,
        backend=network.backend,
        threads=order.thread_count,
        precision=network.precision,
    )
    threshold = engine.metadata.threshold if network.threshold is None else network.threshold
    say_engine(engine, quiet=order.quiet, more=f", threshold {threshold:g}")
    if not order.quiet:
        say_alone(engine, network.batch_size)
    settings = {
        "data": str(data), "part": part, "weights": metadata.name, "weights_sha256": engine.weights_sha256,
        "threshold": threshold, "tta": network.tta, "precision": network.precision, "backend": engine.backend,
    }  # fmt: skip
    with evaluation.album_for(order, len(named)) as album:
        watch = evaluation.watching(album, {name: pair.image for name, pair in named.items()})
        outcomes = _outcomes(engine, replace(network, threshold=threshold), named, order, watch)
        table = evaluation.collect(Table(with_probabilities=True), outcomes, len(named), order)
        pairs = MaskPairs("", "")
        for name, pair in named.items():
            pairs.append(name, name, [str(pair.image)], map(str, pair.masks))
        whole = evaluation.sum_up(order, table, pairs, groups, unpaired=lone, settings=settings)
        if seen is not None:
            kinds = dict(zip(named, seen.kinds))
            unseen = without_seen(table, kinds, order.plan, whole.groups, order.ruler.scale)
            whole = replace(whole, seen=seen, seen_kinds=kinds, unseen=unseen)
        return evaluation.tell(whole, order, limits, album)


def _chosen(data: Path, part: str, order: Order) -> tuple[dict[str, Pair], dict[str, tuple[str, ...]]]:
    """The images of the part by name, their path in the folder without suffix; and files without a partner."""
    if part not in (*PARTS, "all"):
        raise UsageError(f"--part is {part!r}; it must be train, validation, test or all")
    found = open_dataset(data)
    said = tuple(f"{one.path.relative_to(data)} ({one.reason})" for one in found.unpaired)
    evaluation.check_unpaired({"files": said}, allowed=order.allow_unpaired)
    lone = {"files": tuple(one.path.relative_to(data).as_posix() for one in found.unpaired)}
    pairs = _part(found, part)
    files = [(str(pair.image), pair.image.relative_to(data).as_posix()) for pair in pairs]
    return dict(sorted(zip(output_stems(files), pairs))), lone


def _part(found: Dataset, part: str) -> tuple[Pair, ...]:
    if part == "all":
        return found.pairs
    split = found.split()
    pairs: tuple[Pair, ...] = getattr(split, part)
    if not pairs:
        raise DataError(f"the {part} part of {found.root} holds no image", f"its split: {split.rule}")
    return pairs


def _seen(training_images: str | None, named: dict[str, Pair], order: Order, *, strict: bool) -> Seen | None:
    """Which images the weights were trained on. Raises GateError if any, and `strict`."""
    if training_images is None:
        if strict:
            raise GateError(
                "--strict can't be kept: these weights don't say what they were trained on",
                "weights trained by `ascseg train` do",
            )
        return None
    seen = look_up([pair.image for pair in named.values()], training_images, order.thread_count)
    if seen.exact + seen.near:
        names = [name for name, kind in zip(named, seen.kinds) if kind]
        words = (
            f"{len(names):,} of {seen.checked:,} images were seen in training: "
            f"{seen.exact:,} exactly, {seen.near:,} nearly"
        )
        if strict:
            raise GateError(words, f"the first is {names[0]}; try --part test, or leave out --strict")
        say("warning", words)
    return seen


def _outcomes(
    engine: Engine, network: Network, named: dict[str, Pair], order: Order, watch: Watch | None
) -> Iterator[Scored | Unscored]:
    items = [Item(str(pair.image), name, name) for name, pair in named.items()]

    def judge(item: Item, probability: np.ndarray, mask: np.ndarray) -> Scored | Unscored:
        return score_probability(item.name, probability, mask, named[item.name].masks, order.ruler, watch)

    results = judged(
        engine, items, judge,
        threshold=network.threshold or 0.0, cleaning=network.cleaning, tta=network.tta,
        batch=network.batch_size, threads=order.thread_count,
    )  # fmt: skip
    for item, outcome in results:
        yield Unscored(item.name, outcome) if isinstance(outcome, str) else outcome
