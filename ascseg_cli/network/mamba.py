"""PMB, the Parallel Mamba Block: one Mamba shared by four groups of channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ascseg_cli.kernels.chain import Add, Chain, chain
from ascseg_cli.kernels.mamba_mixer import mamba_mixer
from ascseg_cli.network.layers import conv, depthwise
from ascseg_cli.network.shapes import STATES

GROUPS = 4


class Mamba(nn.Module):
    """Tokens mixed along the sequence by a selective scan. Source: Gu and Dao 2023, section 3.

    d channels a token, e = 2d inner channels, n = 16 states, rank r = ceil(d/16) of Δ.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        e = 2 * d
        self.rank = math.ceil(d / 16)
        self.in_proj = nn.Linear(d, 2 * e, bias=False)
        self.conv1d = nn.Conv1d(e, e, 4, groups=e, padding=3)
        self.x_proj = nn.Linear(e, self.rank + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(self.rank, e)
        self.A_log = nn.Parameter(torch.arange(1, STATES + 1, dtype=torch.float32).log().repeat(e, 1))
        self.D = nn.Parameter(torch.ones(e))
        self.out_proj = nn.Linear(e, d, bias=False)
        self._initialise_delta()

    def _initialise_delta(self) -> None:
        """Δ starts log-uniform in [1e-3, 1e-1]. Source: Gu and Dao 2023, section 3.6."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            delta = torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus⁻¹

    def forward(self, t: Tensor) -> Tensor:
        """t (b, l, d) -> (b, l, d)."""
        return self.mixed(t)

    def mixed(self, t: Tensor, groups: int = 1, residual: bool = False) -> Tensor:
        """t (b, l, groups·d) -> (b, l, groups·d), each group by itself; and t more, if residual."""
        assert self.conv1d.bias is not None
        return mamba_mixer(
            t,
            self.in_proj.weight,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
            self.out_proj.weight,
            groups,
            residual,
        )


class ParallelMambaBlock(nn.Module):
    """PMB: LN, one Mamba over four channel groups, Linear, residual, LN; then conv 1, dw 7, GELU, conv 1.

    All three layer norms are the same layer.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.mamba = Mamba(c // GROUPS)
        self.proj = nn.Linear(c, c)
        self.pro1 = conv(c, c, 1)
        self.dwconv = depthwise(c, 7)
        self.pro2 = conv(c, c, 1)
        self._enter = Chain(self.norm)
        self._leave = Chain(self.norm, self.proj, Add(), self.norm, self.pro1, self.dwconv, nn.GELU(), self.pro2)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c, h, w)."""
        u = chain(x, self._enter).flatten(2).transpose(1, 2)  # (b, c, h, w) -> (b, l, c)
        v = self._observed(u) + u if _is_observed(self.mamba) else self.mamba.mixed(u, GROUPS, residual=True)
        return chain(v.transpose(1, 2).view_as(x), self._leave, x)

    def _observed(self, u: Tensor) -> Tensor:
        """u (b, l, c) -> (b, l, c) through the module's call, so that hooks see it: Mamba(u1), then the others."""
        groups = u.unflatten(2, (GROUPS, -1)).movedim(2, 0).flatten(0, 1)  # (4b, l, c/4), group by group
        return self.mamba(groups).unflatten(0, (GROUPS, len(u))).permute(1, 2, 0, 3).flatten(2)


def _is_observed(module: nn.Module) -> bool:
    """Whether hooks hang on the module's call."""
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(len(hooks) > 0 for hooks in kinds)
