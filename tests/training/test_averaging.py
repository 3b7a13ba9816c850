"""Averaged weights are judged as they are now, whatever an evaluation before has prepared from earlier ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.training.averaging import AveragedWeights, recompute_statistics


def uncounted(own: Sequence[Tensor], followed: Sequence[Tensor], weight: float) -> None:
    """What torch does on a GPU: the tensors change, their counts of changes don't."""
    for one, other in zip(own, followed):
        one.data.lerp_(other.data, weight)


@pytest.fixture
def averaged(monkeypatch: pytest.MonkeyPatch) -> AveragedWeights[ASCSeg]:
    monkeypatch.setattr(torch, "_foreach_lerp_", uncounted)
    torch.manual_seed(0)
    network = ASCSeg()
    averaged = AveragedWeights(network, 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return averaged


def probability(network: ASCSeg) -> Tensor:
    with torch.inference_mode(), backend.using("cpu"):
        return network.probability(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32))


def test_an_update_is_seen_by_the_next_evaluation(averaged: AveragedWeights[ASCSeg]) -> None:
    before = probability(averaged.model)
    averaged.update(100)
    after = probability(averaged.model)
    assert not torch.equal(after, before)
    assert torch.equal(after, probability(copy.deepcopy(averaged.model)))


def test_recomputed_statistics_are_seen_too(averaged: AveragedWeights[ASCSeg]) -> None:
    probability(averaged.model)
    recompute_statistics(averaged.model, [torch.randn(2, 3, 32, 32)])
    assert torch.equal(probability(averaged.model), probability(copy.deepcopy(averaged.model)))
