"""How kernels see an image: channels together, pixels at one distance ("pitch"), which may exceed the channels."""

from __future__ import annotations

from torch import Tensor


def pitch(x: Tensor) -> int:
    """Numbers from a pixel to the next, of an image (b, c, h, w) that `pixels` gave."""
    b, c, h, w = x.shape
    strides = (x.stride(3), x.stride(2), x.stride(0))
    return next((stride for stride, size in zip(strides, (w, h, b)) if size > 1), c)


def pixels(x: Tensor) -> Tensor:
    """x (b, c, h, w) itself if it lies so in memory, else a copy; the stride of a size of 1 has no meaning."""
    b, c, h, w = x.shape
    apart = pitch(x)
    wanted = ((b, h * w * apart), (c, 1), (h, w * apart), (w, apart))
    if apart >= c and all(size <= 1 or s == stride for s, (size, stride) in zip(x.stride(), wanted)):
        return x
    return new_pixels(x, c).copy_(x)


def new_pixels(like: Tensor, c: int) -> Tensor:
    """Room for an image of `like`'s size with c channels, channels last: (b, c, h, w)."""
    b, _, h, w = like.shape
    return like.new_empty(b, h, w, c).permute(0, 3, 1, 2)


def together(x: Tensor) -> int:
    """Channels of an image that can be loaded at once: 4 or 1."""
    return 4 if x.shape[1] % 4 == 0 and pitch(x) % 4 == 0 and x.data_ptr() % 16 == 0 else 1
