"""MSFA, Multi-Scale Feature Aggregation: eight dilated branches at three sizes."""

from __future__ import annotations

from torch import Tensor, nn

from ascseg_cli.kernels.chain import Chain, gathered
from ascseg_cli.network.layers import Fused, conv, double

DILATIONS = (1, 2, 3, 4, 1, 3, 1, 3)  # branches 1–4 at the size of x, 5–6 at twice, 7–8 at half of it


class Branch(nn.Module):
    """conv 3 with a dilation, BN, ReLU, conv 1, BN: c channels to c/2."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.extract = nn.Sequential(conv(c, c // 2, 3, dilation=dilation), nn.BatchNorm2d(c // 2))
        self.integrate = nn.Sequential(conv(c // 2, c // 2, 1), nn.BatchNorm2d(c // 2))

    def steps(self) -> tuple[nn.Module, ...]:
        """(b, c, h, w) -> (b, c/2, h, w)."""
        return (*self.extract, nn.ReLU(), *self.integrate)


class MultiScaleFeatureAggregation(nn.Module):
    """Eight branches, concatenated in order, then a grouped conv 3 and a conv 1."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self._branches = []
        for number, dilation in enumerate(DILATIONS, 1):
            branch = Branch(c, dilation)
            self.add_module(f"cfe{number}", branch)
            self._branches.append(_at_its_size(number, branch))
        self.extract = Fused(
            conv(4 * c, c, 3, groups=c), nn.BatchNorm2d(c), nn.ReLU(),
            conv(c, c, 1), nn.BatchNorm2d(c),
        )  # fmt: skip
        self._close = Chain(*self.extract)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w), h and w even -> (b, c, h, w)."""
        return gathered(x, self._branches, self._close)  # (b, 4c, h, w) -> (b, c, h, w)


def _at_its_size(number: int, branch: Branch) -> Chain:
    """Branches 5 and 6 see twice the size of x, 7 and 8 half of it; all end at that of x."""
    if number <= 4:
        return Chain(*branch.steps())
    if number <= 6:
        return Chain(double(), *branch.steps(), nn.MaxPool2d(2))
    return Chain(nn.MaxPool2d(2), *branch.steps(), double())
