"""The validation part as finished weights will see it: the product's own rule, judged at the images' own sizes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.preprocess import prepare, resize_probability
from ascseg_cli.errors import DataError
from ascseg_cli.network.metadata import Preprocessing, Score
from ascseg_cli.training.images import read_pair
from ascseg_cli.training.scores import Counts, best_threshold, count

_BATCH = 20


@dataclass(frozen=True)
class Validation:
    """Images ready for the network, and the truth at two sizes. Images with an empty mask are left out of scores.

    pairs    n images with their masks
    inputs   (n, 3, s, s) float32
    truths   n masks (h, w) bool, the images' own sizes
    small    n masks (s, s) bool, the truths scaled by nearest
    """

    pairs: list[Pair]
    inputs: Tensor
    truths: list[np.ndarray]
    small: list[np.ndarray]

    @classmethod
    def load(cls, pairs: Sequence[Pair], rule: Preprocessing, device: torch.device) -> Validation:
        """Decode and prepare every pair whose mask isn't empty. Raises DataError, also where there is none."""

        def one(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
            pixels, truth = read_pair(pair)
            return prepare(pixels, rule=rule.rule, size=rule.size, mean=rule.mean, std=rule.std), truth

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = [(pair, *both) for pair, both in zip(pairs, pool.map(one, pairs)) if both[1].any()]
        if not loaded:
            raise DataError(
                f"the validation part holds {len(pairs)} images, and none of them shows anything to find",
                "add images, or say each one's part with --split-file",
            )
        inputs = torch.from_numpy(np.stack([x for _, x, _ in loaded])).to(device)
        truths = [truth for _, _, truth in loaded]
        return cls([p for p, _, _ in loaded], inputs, truths, [_nearest(truth, rule.size) for truth in truths])

    def probabilities(self, model: nn.Module) -> list[np.ndarray]:
        """The first head's n maps (s, s) float32 of a model in evaluation mode."""
        with torch.no_grad():
            maps = [model(batch)[0].sigmoid()[:, 0] for batch in self.inputs.split(_BATCH)]
        return list(torch.cat(maps).float().cpu().numpy())

    def own_size(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each map scaled to its image's own size."""
        return [resize_probability(p, truth.shape) for p, truth in zip(maps, self.truths)]

    def judge(self, model: nn.Module) -> Verdict:
        """The best threshold of a coarse grid and the scores that go into the weights."""
        maps = self.probabilities(model)
        own = self.own_size(maps)
        threshold = best_threshold(own, self.truths)
        counts = {cut: count(own, self.truths, cut) for cut in (threshold, 0.5)}
        scores: list[Score] = []
        for cut in sorted(counts):
            scores += _scores(counts[cut], "at the images' own sizes", cut)
        scores += _scores(count(maps, self.small, 0.5), "at the network's size, masks by nearest", 0.5)
        return Verdict(threshold, scores, counts[threshold], maps)


@dataclass(frozen=True)
class Verdict:
    """What the validation part says of a model.

    counts  at the threshold, at the images' own sizes
    maps    the probabilities (s, s) of each image
    """

    threshold: float
    scores: list[Score]
    counts: Counts
    maps: list[np.ndarray]


def _scores(counts: Counts, where: str, threshold: float) -> list[Score]:
    protocol = f"single pass, threshold {threshold}, {where}; images with an empty mask left out"
    figures = {"pooled_iou": counts.pooled_iou(), "mean_dice": counts.mean_dice()}
    n = len(counts.hit)
    return [
        Score(part="validation", metric=metric, value=round(value, 4), protocol=protocol, images=n)
        for metric, value in figures.items()
    ]


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (((np.arange(to) + 0.5) * had / to).astype(int) for to, had in zip(size, mask.shape))
    return mask[np.ix_(rows, columns)]
