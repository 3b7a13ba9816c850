"""Writes a .pt2 file: the way from pixels to mask as torch.export's graph, which needs torch alone to run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.graphs import description
from ascseg_cli.graphs.folding import Tensors
from ascseg_cli.graphs.form import Form
from ascseg_cli.graphs.to_torch.operations import TorchOperations
from ascseg_cli.network.checkpoint import Checkpoint
from ascseg_cli.network.metadata import Preprocessing

LARGEST = 65_536  # pixels a side


class Network(nn.Module):
    """(b, 3, h, w) float32 prepared, any size -> probability and mask (b, h, w)."""

    def __init__(self, checkpoint: Checkpoint, tokens: int) -> None:
        super().__init__()
        self._channels, self._tensors = checkpoint.metadata.channels, Tensors(checkpoint.tensors)
        self._operations = TorchOperations(self, tokens)
        self._threshold = checkpoint.metadata.threshold

    def probability(self, x: Tensor) -> Tensor:
        """x (b, 3, h, w), multiples of 16 -> (b, 1, h, w)."""
        return description.logit(self._operations, x, self._tensors, self._channels).sigmoid()

    def result(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """p (b, 1, h, w) -> probability and mask."""
        return p[:, 0], (p[:, 0] >= self._threshold).to(torch.uint8)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        h, w = image.shape[2:]
        padded = F.pad(image, (0, (-w) % 16, 0, (-h) % 16), mode="replicate")
        return self.result(self.probability(padded)[:, :, :h, :w])


class Pipeline(Network):
    """image (b, h, w, 3) uint8 of any size -> probability and mask (b, h, w). As `data.preprocess` does it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        how = checkpoint.metadata.preprocessing
        super().__init__(checkpoint, how.size[0] * how.size[1])
        self._how = how
        for name in ("mean", "std"):
            self.register_buffer(name, 255 * torch.tensor(getattr(how, name)).view(3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        p = self.probability(self._prepared(image.permute(0, 3, 1, 2).float(), self._how))
        return self.result(F.interpolate(p, image.shape[1:3], mode="bilinear"))

    def _prepared(self, x: Tensor, how: Preprocessing) -> Tensor:
        if how.rule == "squeeze_antialias":
            scaled = F.interpolate(x, how.size, mode="bilinear", antialias=True)
            return (scaled - self.get_buffer("mean")) / self.get_buffer("std")
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        return (F.interpolate(x, how.size, mode="bilinear") - low) * (255 / (high - low).clamp(min=1))


def content(checkpoint: Checkpoint, form: Form, texts: Mapping[str, str]) -> bytes:
    """The bytes of the file, with `texts` as further files inside, each found by its key."""
    module = _module(checkpoint, form)
    example = _example(checkpoint, form)
    with torch.no_grad():
        module.eval()(example)
        program = torch.export.export(module, (example,), dynamic_shapes=_sizes(form), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


def _module(checkpoint: Checkpoint, form: Form) -> Network:
    if not form.core_only:
        return Pipeline(checkpoint)
    assert form.static, "`form_of` sees to it"
    h, w = (-(-side // 16) * 16 for side in form.static)
    return Network(checkpoint, h * w)


def _example(checkpoint: Checkpoint, form: Form) -> Tensor:
    """An image of which no size is like another, and none a multiple of anything."""
    h, w = form.static or (45, 67)
    if form.core_only:
        return torch.zeros(2, 3, h, w)
    return torch.zeros(2, h, w, 3, dtype=torch.uint8)


def _sizes(form: Form) -> Any:
    """Which sizes of the image stay open."""
    batch = {0: torch.export.Dim("batch", min=1)}
    if form.static:
        return (batch,)
    sides = {axis: torch.export.Dim(name, min=1, max=LARGEST) for axis, name in ((1, "height"), (2, "width"))}
    return (batch | sides,)
