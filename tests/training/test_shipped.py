"""The shipped weights do what their metadata say, on a fixed sample of each validation part, by the Python API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.data.fingerprint import decode, encode
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.leaks import fingerprints_of, without_leaks
from ascseg_cli.data.split import PARTS
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter
from ascseg_cli.network.checkpoint import read_metadata
from ascseg_cli.training.images import read_pair
from ascseg_cli.weights.store import locate

SAMPLES = {  # data set: folder, pooled IoU of every tenth validation image, when the weights were released
    "kvasir": ("Kvasir", 0.8672),
    "busi": ("BUSI", 0.678),
    "ph2": ("PH2", 0.8815),
    "isic2018": ("ISIC2018", 0.8429),
    "isic2017": ("ISIC2017", 0.654),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_pooled_iou_of_the_sample_holds(shared_data: Path, name: str) -> None:
    folder, released = SAMPLES[name]
    segmenter = Segmenter(open_engine(locate(name, None), device="cpu"))
    inside = union = 0
    for pair in open_dataset(shared_data / folder).split().validation[::10]:
        pixels, truth = read_pair(pair)
        mask = segmenter(pixels).mask
        inside += int(np.sum(mask & truth))
        union += int(np.sum(mask | truth))
    assert inside / union == pytest.approx(released, abs=0.002)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_weights_saw_the_training_part_less_what_was_left_out(shared_data: Path, name: str) -> None:
    metadata = read_metadata(locate(name, None))
    parts = open_dataset(shared_data / SAMPLES[name][0]).split()
    words = metadata.split["rule"].removeprefix(parts.rule)
    left_out = int(words.split()[1]) if words else 0
    assert metadata.split["train"] == len(parts.train) - left_out
    seen = len(decode(metadata.training_images or ""))  # more where the first weights had seen some of those
    assert metadata.split["train"] <= seen <= len(parts.train)
    assert {part: metadata.split[part] for part in PARTS[1:]} == {part: parts.counts()[part] for part in PARTS[1:]}


@pytest.mark.parametrize("name", ["ph2", "busi"])  # the sets of few images
def test_the_split_in_the_weights_is_the_folders_own_without_copies(shared_data: Path, name: str) -> None:
    metadata = read_metadata(locate(name, None))
    parts = open_dataset(shared_data / SAMPLES[name][0]).split()
    known, _ = fingerprints_of([pair.image for part in PARTS for pair in getattr(parts, part)], 1)
    kept, _ = without_leaks(parts, known)
    assert metadata.split["sha256"] == kept.sha256()
    assert metadata.training_images == encode(known[pair.image] for pair in kept.train)
