"""How the deformable convolution's work is shared out to blocks and threads; see `deform.cuh` and `marks.cuh`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ascseg_cli.errors import ShapeError

WARPS = 4  # of a block of the kernels that take pixels in their order
SUM_THREADS = 512  # of a block that adds up partial sums
_BLOCKS = 1056  # enough for every multiprocessor of a large GPU to hold several
_MARGIN = 6  # pixels around a tile from which samples are looked for; offsets below 5 px never come from further


@dataclass(frozen=True)
class Pixels:
    """An image (b, c, h, w) whose channels lie side by side, and how many numbers a pixel is from the next."""

    tensor: Tensor
    pitch: int

    @classmethod
    def of(cls, image: Tensor) -> Pixels:
        """The image itself, or a copy where its channels or pixels lie otherwise. Raises ShapeError."""
        b, c, h, w = image.shape
        stride_b, stride_c, stride_h, stride_w = image.stride()
        pitch = stride_w if w > 1 else stride_h if h > 1 else stride_b if b > 1 else c
        dense = (c == 1 or stride_c == 1) and (h == 1 or stride_h == w * pitch) and pitch >= c
        if not (dense and (b == 1 or stride_b == h * w * pitch)):
            pitch = 0
        if (h + 1) * (w + 1) * (pitch or c) >= 2**31:
            raise ShapeError(
                f"an image is {c}×{h}×{w}; the gpu backend takes 2^31 numbers at most", "use --backend reference"
            )
        return cls(image, pitch) if pitch else cls(_channels_last(image), c)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        b, c, h, w = self.tensor.shape
        return b, c, h, w

    @property
    def arguments(self) -> tuple[Tensor, int]:
        return self.tensor, self.pitch

    def divisible(self, numbers: int) -> bool:
        """Whether every pixel begins at a multiple of so many numbers."""
        return self.pitch % numbers == 0 and self.tensor.data_ptr() % (self.tensor.element_size() * numbers) == 0


def _channels_last(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _split(c: int, images: tuple[Pixels, ...], most: int) -> tuple[int, int, int]:
    """Channels that a thread takes at once, threads of a pixel (up to `most`), slices of the channels."""
    vec = 4 if c % 4 == 0 and all(image.divisible(4) for image in images) else 1
    quads = c // vec
    slices = -(-quads // most)
    return vec, -(-quads // slices), slices


@dataclass(frozen=True)
class Shares:
    """A warp takes `pixels` pixels at once."""

    c: int
    vec: int
    lanes: int
    slices: int

    @classmethod
    def of(cls, c: int, *images: Pixels) -> Shares:
        return cls(c, *_split(c, images, 32))

    @property
    def pixels(self) -> int:
        return 32 // self.lanes

    @property
    def constants(self) -> dict[str, int]:
        return {"C": self.c, "VEC": self.vec, "LANES": self.lanes}

    @property
    def shared(self) -> int:
        """Bytes: norms, weights, offsets of a block's pixels."""
        return 4 * (72 + _in_fours(9 * self.lanes * self.vec) + WARPS * self.pixels * 18)

    @property
    def shared_for_sums(self) -> int:
        """Bytes where the same memory later holds each thread's sums."""
        return max(self.shared, 4 * 32 * WARPS * 9 * self.vec)

    def rounds(self, b: int, pixels: int) -> int:
        """How often a block takes new pixels: so that there are blocks enough, and not too many partial sums."""
        return max(1, min(32, b * -(-pixels // (WARPS * self.pixels)) // _BLOCKS))


@dataclass(frozen=True)
class Gathering:
    """The gradient of x: tiles of `tile` × `tile` pixels."""

    c: int
    vec: int
    lanes: int
    slices: int
    tile: int
    tiles: int

    @classmethod
    def of(cls, b: int, c: int, h: int, w: int, dy: Pixels) -> Gathering:
        vec = _split(c, (dy,), 32)[0]
        tile = tile_for(b, h, w)
        return cls(c, *_split(c, (dy,), 32 // vec), tile, -(-h // tile) * -(-w // tile))

    @property
    def threads(self) -> int:
        return 192

    @property
    def tiling(self) -> dict[str, int]:
        return {"TILE": self.tile, "MARGIN": _MARGIN}

    @property
    def constants(self) -> dict[str, int]:
        return {"C": self.c, "VEC": self.vec, "LANES": self.lanes, "THREADS": self.threads} | self.tiling

    @property
    def shared(self) -> int:
        """Bytes: norms, the tile, weights, ends of lists; then three lists of the window's samples."""
        channels = self.lanes * self.vec
        floats = 72 + self.tile**2 * channels + _in_fours(9 * channels) + (self.tile + 1) ** 2 + self.threads // 32
        return 4 * floats + 6 * 9 * (self.tile + 2 * _MARGIN) ** 2


def tile_for(b: int, h: int, w: int) -> int:
    """Large tiles look at fewer pixels around them; small ones keep all multiprocessors at work."""
    return 16 if b * (-(-h // 16) * -(-w // 16)) >= 512 else 8


def _in_fours(numbers: int) -> int:
    return -(-numbers // 4) * 4
