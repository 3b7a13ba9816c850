"""The shipped weights do what their metadata say, on a fixed sample of each validation part, by the Python API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter
from ascseg_cli.network.checkpoint import read_metadata
from ascseg_cli.training.images import read_pair
from ascseg_cli.weights.store import locate

SAMPLES = {  # data set: folder, pooled IoU of every tenth validation image, when the weights were released
    "kvasir": ("Kvasir", 0.8439),
    "busi": ("BUSI", 0.7208),
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
def test_the_split_in_the_weights_is_the_folders_own(shared_data: Path, name: str) -> None:
    stored = read_metadata(locate(name, None)).split
    parts = open_dataset(shared_data / SAMPLES[name][0]).split()
    assert stored["sha256"] == parts.sha256()
    assert {part: stored[part] for part in parts.counts()} == parts.counts()
