"""How one call of the mixer is cut into blocks of threads, and the shared memory they need; as in `mixer.cuh`."""

from __future__ import annotations

from dataclasses import dataclass

TILE, BACK, SUB = 16, 3, 4
_CHANNELS = 32  # inner channels in a block, at most, where a group has no more
_LANES = 256  # threads in a block, where 16 states a thread are enough for that
_BLOCKS = 512  # some for each multiprocessor: chunks are cut shorter until there are so many
_MULTIPROCESSORS, _THEIR_SHARED, _THEIR_THREADS = 132, 227 * 1024, 512  # of an H100, at 128 registers a thread
_PARTIALS = 5 * 2**20  # numbers in all of their sums together
_WIDE = 4096  # weights whose sums fit into shared memory
_SHARED = 99 * 1024  # bytes in a block: what every GPU of compute capability 8.0 and newer grants


def up(value: int, step: int = 4) -> int:
    return -(-value // step) * step


def odd4(value: int) -> int:
    return up(value) + (0 if up(value) // 4 % 2 else 4)


@dataclass(frozen=True)
class Layout:
    """Sizes and constants of the kernels for one operator's weights."""

    groups: int
    d: int
    r: int
    n: int

    @property
    def e(self) -> int:
        return 2 * self.d

    @property
    def together(self) -> int:
        """Groups in a block."""
        fitting = (k for k in range(1, self.groups + 1) if self.groups % k == 0 and k * self.e <= _CHANNELS)
        return max(fitting, default=1)

    @property
    def blocks(self) -> int:
        """Blocks that share the groups of one chunk."""
        return self.groups // self.together

    @property
    def states(self) -> int:
        """States of a thread."""
        few = (s for s in (4, 8, 16) if self.channels * -(-self.n // s) <= _LANES)
        return next(few, 16)

    @property
    def channels(self) -> int:
        return self.together * self.e

    @property
    def padded(self) -> int:
        """n, whole threads' worth."""
        return up(self.n, self.states)

    @property
    def lanes(self) -> int:
        return self.channels * self.padded // self.states

    @property
    def threads(self) -> int:
        return up(self.lanes, 32)

    @property
    def constants(self) -> dict[str, int]:
        return {"DIM": self.d, "RANK": self.r, "STATES": self.n, "GB": self.together, "S": self.states}

    @property
    def rows(self) -> int:
        return TILE * self.together

    @property
    def row(self) -> int:
        """Numbers in a row of inner channels, XP."""
        return odd4(self.e)

    @property
    def token(self) -> int:
        """DP."""
        return odd4(self.d)

    @property
    def projected(self) -> int:
        """PP."""
        return odd4(2 * self.padded + self.r)

    @property
    def weights(self) -> int:
        e, row = self.e, up(self.e)
        wide = 2 * e * self.token + self.d * self.row + row * (2 * self.padded + self.r)
        return up(wide + e * (4 + self.r + 3))

    def ends_memory(self, length: int) -> int:
        """Bytes of shared memory of `chunk_ends`."""
        tile = self.rows * (2 * self.row + self.projected)
        return 4 * (self.weights + tile + (length + BACK) * self.together * self.token)

    def replay_memory(self, length: int) -> int:
        """Bytes of shared memory of `replay`."""
        return self.ends_memory(length) + 4 * (self.rows * self.row + TILE * self.lanes)

    @property
    def adjoint_memory(self) -> int:
        """Bytes of shared memory of `adjoint_ends`."""
        return self.ends_memory(TILE) + 4 * self.rows * (self.row + self.token)

    @property
    def gradients_memory(self) -> int:
        """Bytes of shared memory of `gradients`."""
        cells = (
            self.rows * (5 * self.row + self.projected + self.token) + (TILE + BACK) * self.together * self.token
        )
        checks = TILE // SUB * self.lanes * self.states
        parts = max(3 * SUB, 7 + self.r + self.states) * self.lanes
        return 4 * (self.weights + cells + checks + self._room + parts + (0 if self.wide else self.parameters))

    @property
    def _room(self) -> int:
        """Numbers of `room`."""
        e, d, shares = self.e, self.d, 2 * SUB * self.channels * self.padded
        projection = self._outer(2 * self.padded + self.r, e, self.threads)
        pulled = (TILE + BACK) * self.together * self.row
        return max(shares, projection, pulled + 3 * self._outer(e, d, 64))

    def _outer(self, a: int, b: int, limit: int) -> int:
        tiles = -(-a // 4) * -(-b // 4)
        return max(1, min(self.threads // tiles, limit // tiles, 8)) * tiles * 16

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return self.e * (3 * self.d + 4 + 3 + self.r + (self.r + 2 * self.n) + self.n)

    @property
    def wide(self) -> bool:
        """Whether the gradients of the weights are summed outside shared memory."""
        return self.parameters > _WIDE

    def workers(self, chunks: int) -> int:
        """Blocks of `gradients` that share so many chunks, for each of `blocks`: as many as an H100 holds."""
        held = max(1, min(_THEIR_SHARED // (self.gradients_memory + 1024), _THEIR_THREADS // self.threads))
        fair = max(1, _MULTIPROCESSORS * held // self.blocks)
        return max(1, min(chunks, fair, _PARTIALS // (self.parameters * self.blocks)))

    def length(self, b: int, l: int) -> int:
        """Tokens of a chunk."""
        for length, enough in ((128, 8 * _BLOCKS), (64, _BLOCKS), (32, _BLOCKS)):
            if b * -(-l // length) * self.blocks >= enough and self.replay_memory(length) <= _SHARED:
                return length
        return TILE

    @property
    def fits(self) -> bool:
        """Whether a GPU can run it."""
        least = min(self.d, self.r, self.n)
        return least > 0 and self.threads <= 1024 and self.replay_memory(64) <= _SHARED
