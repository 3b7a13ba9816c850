"""A dense 1×1 convolution of few channels on the GPU: memory is the limit, so each image is read once.

Backward, one kernel gives the gradients of input, weights and norm; wider layers take two that read all twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.kernels.cuda import Argument, kernel

_SOURCE = Path(__file__).with_name("pointwise.cu")
_MOST = 32  # channels of input and of output whose weights' gradients a thread can hold
_MULTIPROCESSORS = 132
_PIXELS = 4  # a thread has at least as many, where there are enough


def suits(ci: int, co: int, k: int, in_vec: int, out_vec: int) -> bool:
    """Whether these kernels take the layer; channels of input and output that can be loaded at once."""
    quads = (1, 2, 3, 4, 6, 8)
    narrow = ci <= _MOST and co <= _MOST and ci // 4 in quads and co // 4 in quads
    return k == 1 and narrow and in_vec == out_vec == 4


@dataclass(frozen=True)
class Launch:
    """Blocks, threads of a block, and bytes of shared memory."""

    blocks: int
    threads: int
    shared: int


def forward_launch(pixels: int, ci: int, co: int) -> Launch:
    """One launch of `forward`."""
    threads = 192 if co % 12 == 0 else 256
    return Launch(_blocks(pixels, threads, co), threads, max(4 * (3 * ci + ci * co), 8 * 9 * threads))


def backward_launch(pixels: int, ci: int, co: int) -> Launch:
    """One launch of `backward`."""
    threads = 96 if ci % 12 == 0 else 128
    scratch = max(17 * threads + 4 * ci, 9 * threads + 1 + 4 * ci)
    return Launch(_blocks(pixels, threads, ci), threads, 4 * (3 * ci + 3 * co + ci * co + scratch))


def _blocks(pixels: int, threads: int, c: int) -> int:
    return max(1, min(-(-pixels // (threads * 4 // c * _PIXELS)), 4 * _MULTIPROCESSORS))


def forward(launch: Launch, constants: dict[str, int], *arguments: Argument) -> None:
    """Run; constants ACTIVATION, NORMED, BATCH, CI, CO; arguments as the kernel lists them."""
    run = kernel(_SOURCE, "pointwise_forward", BACKWARD=0, **constants)
    run((launch.blocks,), launch.threads, *arguments, shared=launch.shared)


def backward(launch: Launch, constants: dict[str, int], *arguments: Argument) -> None:
    """Run; constants as forward's, and SUMMED, BIASED; slabs (blocks, ci·co + co if BIASED) get shares of sums."""
    run = kernel(_SOURCE, "pointwise_backward", BACKWARD=1, **constants)
    run((launch.blocks,), launch.threads, *arguments, shared=launch.shared)
