"""Room for the sums of a kernel's blocks, which its last block adds up (`last_block.cuh`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascseg_cli.kernels.cuda import Argument

_TOGETHER = 64  # rows that one block adds where there are many: more take long, fewer leave many to add at last
_FEW = 192  # rows that the last block adds alone
_OF_A_STREAM = 2**14  # tickets of one launch, at most
_OF_GRAPHS = 2**18  # tickets that captured launches share out

_by_stream: dict[tuple[torch.device, int], Tensor] = {}
_for_graphs: dict[torch.device, list[Tensor]] = {}  # the last one is being shared out; graphs still use the others
_taken: dict[torch.device, int] = {}


@dataclass(frozen=True)
class Rows:
    """Numbers of each of `count` blocks, or of `writers` blocks together.

    at  float64, room for `count` rows of n, and for sums of each `together` rows
    """

    at: Tensor
    count: int
    together: int
    writers: int

    @classmethod
    def of(cls, like: Tensor, count: int, n: int, writers: int = 1) -> Rows:
        together = count if count <= _FEW else max(_TOGETHER, -(-count // (_OF_A_STREAM - 1)))
        groups = -(-count // max(together, 1))
        at = like.new_empty(count + groups, n, dtype=torch.float64)
        return cls(at, count, max(together, 1), writers)

    @property
    def argument(self) -> tuple[Argument, ...]:
        """As a kernel takes it; asked for once a launch."""
        tickets = _tickets(self.at, -(-self.count // self.together) + 1)
        return self.at, tickets, self.count, self.together, self.writers


def scratch(n: int, threads: int) -> int:
    """Bytes of shared memory in which a block finishes n sums."""
    return 8 * (n + threads)


def _tickets(like: Tensor, count: int) -> Tensor:
    """Zeros, which the launch that takes them leaves as zeros.

    Launches of one stream follow each other, so they share theirs. A captured launch may run beside any other: its
    tickets are its own for ever.
    """
    device, stream = like.device, 0
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return _for_ever(device, count)
        stream = torch.cuda.current_stream(device).cuda_stream
    if _taken.get(device, _OF_GRAPHS) > _OF_GRAPHS // 2:
        _for_graphs.setdefault(device, []).append(torch.zeros(_OF_GRAPHS, dtype=torch.int32, device=device))
        _taken[device] = 0
    if (device, stream) not in _by_stream:
        _by_stream[device, stream] = torch.zeros(_OF_A_STREAM, dtype=torch.int32, device=device)
    return _by_stream[device, stream]


def _for_ever(device: torch.device, count: int) -> Tensor:
    taken = _taken.get(device, _OF_GRAPHS)
    if taken + count > _OF_GRAPHS:
        return torch.zeros(count, dtype=torch.int32, device=device)  # zeroed whenever the graph runs
    _taken[device] = taken + count
    return _for_graphs[device][-1][taken : taken + count]
