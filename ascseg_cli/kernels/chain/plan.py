"""How a chain becomes passes: what each does over neighbours and within a pixel, with batch norms folded in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from ascseg_cli.errors import ShapeError
from ascseg_cli.kernels.chain import codes as k
from ascseg_cli.kernels.chain.steps import Add, Boost, Gate, HighPass, SoftGate

_ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: k.RELU, nn.GELU: k.GELU, nn.Sigmoid: k.SIGMOID}
_COMBINATIONS: dict[type[nn.Module], int] = {Add: k.ADD, Gate: k.GATE, SoftGate: k.SOFT_GATE, Boost: k.BOOST}
_BORDER = 16  # the widest that scratch rows have room for


@dataclass
class Draft:
    """A pass that still grows. Weights (out, in, k, k) wait in float64 for a norm to be folded in."""

    into: int
    channels: int
    resize_in: int = k.SAME
    resize_out: int = k.SAME
    over: int = k.ALONE
    size: int = 1
    dilation: int = 1
    widest: int = 0
    convolution: list[np.ndarray] = field(default_factory=list)
    over_out: int = 0
    within: list[list[int]] = field(default_factory=list)
    parts: list[list[np.ndarray]] = field(default_factory=list)
    foldable: list[np.ndarray] | None = None


def drafts_of(steps: Sequence[nn.Module], channels: int, others: int) -> list[Draft]:
    """The passes of a chain on so many channels, with so many of its other operand. Raises ShapeError."""
    drafts = [Draft(channels, channels)]
    for step in steps:
        _add(drafts, step, others)
    return drafts


def convolution_draft(weight: Tensor, bias: Tensor | None, dilation: int, groups: int) -> Draft:
    """The pass of one convolution over neighbours: weight (out, in / groups, k, k), groups 1, out, or in.

    Where an input has several outputs, the dilation is 1.
    """
    out, each, size, _ = weight.shape
    draft = Draft(each * groups, each * groups)
    numbers = [_number(weight), _bias(bias, out)]
    _over([draft], k.DENSE if groups == 1 else k.GROUPED, size, dilation, numbers)
    return draft


def _add(drafts: list[Draft], step: nn.Module, others: int) -> None:
    if is_doubling(step):
        _resize(drafts, k.DOUBLE)
    elif is_pooling(step, nn.MaxPool2d, 2):
        _resize(drafts, k.HALVE)
    elif is_pooling(step, nn.MaxPool2d, 3):
        _over(drafts, k.MAXIMUM, 3, 1, [])
    elif is_pooling(step, nn.AvgPool2d, 3):
        _over(drafts, k.GROUPED, 3, 1, _window(drafts, 0.0, 1 / 9))
    elif isinstance(step, HighPass):
        _over(drafts, k.GROUPED, 3, 1, _window(drafts, 1.0, -1 / 9))
    elif isinstance(step, nn.Conv2d):
        _convolution(drafts, step)
    elif isinstance(step, nn.Linear):
        _pointwise(drafts, [_number(step.weight)[:, :, None, None], _bias(step.bias, step.out_features)])
    else:
        _pixelwise(_open(drafts), step, others)


def is_doubling(step: nn.Module) -> bool:
    """Whether a step enlarges by 2, bilinear, corners aligned."""
    if not isinstance(step, nn.Upsample):
        return False
    return step.scale_factor == 2 and bool(step.align_corners) and step.mode == "bilinear"


def activation_code(step: nn.Module) -> int | None:
    """The code of an activation; None where a step isn't one, or only nearly."""
    return _ACTIVATIONS.get(type(step)) if getattr(step, "approximate", "none") == "none" else None


def is_pooling(step: nn.Module, kind: type[nn.Module], size: int) -> bool:
    """Whether a step pools by 2 (size 2) or over 3×3 neighbours."""
    form = {2: (2, 2, 0), 3: (3, 1, 1)}[size]
    return isinstance(step, kind) and (step.kernel_size, step.stride, step.padding) == form


def _pixelwise(draft: Draft, step: nn.Module, others: int) -> None:
    """A step that needs no neighbours and is no convolution."""
    if isinstance(step, nn.BatchNorm2d):
        _batch_norm(draft, *_scale_and_shift(step))
    elif isinstance(step, nn.LayerNorm):
        numbers = np.stack([_number(step.weight), _number(step.bias)], 1).ravel()
        _within(draft, k.NORM, draft.channels, [np.concatenate([[step.eps], numbers])])
    elif (activation := activation_code(step)) is not None:
        _within(draft, activation, draft.channels, [])
    elif type(step) in _COMBINATIONS:
        _within(draft, _COMBINATIONS[type(step)], others, [])
    else:
        raise ShapeError(f"{step} can't be a step of a compiled chain", "use --backend reference")


def _number(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _bias(tensor: Tensor | None, out: int) -> np.ndarray:
    return np.zeros(out) if tensor is None else _number(tensor)


def _open(drafts: list[Draft]) -> Draft:
    """The last pass, or a new one where the last has written its pooled rows."""
    if drafts[-1].resize_out != k.SAME:
        drafts.append(Draft(drafts[-1].channels, drafts[-1].channels))
    return drafts[-1]


def _resize(drafts: list[Draft], how: int) -> None:
    draft = drafts[-1]
    begun = draft.over != k.ALONE or bool(draft.within) or draft.resize_in != k.SAME
    if begun and how == k.HALVE and draft.resize_out == k.SAME:
        draft.resize_out = how
    elif begun or draft.resize_out != k.SAME:
        drafts.append(Draft(draft.channels, draft.channels, resize_in=how))
    else:
        draft.resize_in = how


def _window(drafts: list[Draft], centre: float, around: float) -> list[np.ndarray]:
    weight = np.full((drafts[-1].channels, 1, 3, 3), around)
    weight[:, :, 1, 1] += centre
    return [weight, np.zeros(drafts[-1].channels)]


def _over(drafts: list[Draft], over: int, size: int, dilation: int, convolution: list[np.ndarray]) -> None:
    draft = drafts[-1]
    if draft.over != k.ALONE or draft.within or draft.resize_out != k.SAME:
        draft = Draft(draft.channels, draft.channels)
        drafts.append(draft)
    draft.over, draft.size, draft.dilation = over, size, dilation
    draft.convolution = draft.foldable = convolution
    draft.channels = len(convolution[1]) if convolution else draft.channels
    draft.over_out = draft.channels


def _convolution(drafts: list[Draft], step: nn.Conv2d) -> None:
    size, dilation = step.kernel_size[0], int(step.dilation[0])
    border = dilation * (size - 1) // 2
    square = step.kernel_size == (size, size) and step.dilation == (dilation, dilation) and size % 2 == 1
    plain = step.stride == (1, 1) and step.padding == (border, border) and step.padding_mode == "zeros"
    if not (square and plain and border <= _BORDER and step.groups in (1, step.out_channels)):
        raise ShapeError(f"{step} can't be a step of a compiled chain", "use --backend reference")
    convolution = [_number(step.weight), _bias(step.bias, step.out_channels)]
    if size == 1 and step.groups == 1:
        _pointwise(drafts, convolution)
    else:
        _over(drafts, k.DENSE if step.groups == 1 else k.GROUPED, size, dilation, convolution)


def _pointwise(drafts: list[Draft], convolution: list[np.ndarray]) -> None:
    draft = _open(drafts)
    _within(draft, k.POINTWISE, len(convolution[1]), convolution)
    draft.foldable = convolution


def _within(draft: Draft, kind: int, out: int, numbers: list[np.ndarray]) -> None:
    draft.within.append([kind, draft.channels, out, 0])
    draft.parts.append(numbers)
    draft.foldable = None
    draft.channels = out
    draft.widest = max(draft.widest, out)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = _number(norm.weight) / np.sqrt(_number(norm.running_var) + norm.eps)
    return scale, _number(norm.bias) - _number(norm.running_mean) * scale


def _batch_norm(draft: Draft, scale: np.ndarray, shift: np.ndarray) -> None:
    if draft.foldable:
        draft.foldable[0] = draft.foldable[0] * scale[:, None, None, None]
        draft.foldable[1] = draft.foldable[1] * scale + shift
    else:
        _within(draft, k.AFFINE, draft.channels, [np.stack([scale, shift], 1).ravel()])
