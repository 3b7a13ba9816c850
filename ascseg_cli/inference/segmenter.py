"""The Python API: an image in, a mask in the image's own pixels out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli.errors import InputError, UsageError
from ascseg_cli.inference.engine import Engine, open_engine
from ascseg_cli.inference.postprocess import Cleaning, Findings, binarise, measure
from ascseg_cli.inference.tta import predict_probability

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | Path | Image | np.ndarray


@dataclass(frozen=True)
class Segmentation:
    """The result for one image, in the image's own pixels.

    mask         (h, w) bool
    probability  (h, w) float32, 0..1
    threshold    the mask is probability ≥ threshold, then cleaned
    """

    mask: np.ndarray
    probability: np.ndarray
    threshold: float

    @property
    def findings(self) -> Findings:
        """Foreground pixels, components, bounding box and confidence."""
        return measure(self.mask, self.probability)


class Segmenter:
    """Segments one image at a time with weights loaded once.

    >>> segmenter = Segmenter.from_pretrained("kvasir")  # doctest: +SKIP
    >>> segmenter("polyp.jpg").mask.sum()                # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        *,
        threshold: float | None = None,
        tta: bool = False,
        cleaning: Cleaning | None = None,
    ) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"threshold is {threshold}; it must lie between 0 and 1")
        self.engine = engine
        self.threshold = engine.metadata.threshold if threshold is None else threshold
        self.tta = tta
        self.cleaning = cleaning or Cleaning()

    @classmethod
    def from_pretrained(
        cls,
        dataset: str,
        *,
        variant: str | None = None,
        device: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
        tta: bool = False,
    ) -> Segmenter:
        """The shipped weights of a data set: isic2017, isic2018, ph2, kvasir or busi.

        Raises WeightsError, BackendError.
        """
        from ascseg_cli.weights.store import locate

        file = locate(dataset, variant)
        return cls.from_weights(
            file, device=device, backend=backend, threads=threads, threshold=threshold, tta=tta
        )

    @classmethod
    def from_weights(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
        tta: bool = False,
    ) -> Segmenter:
        """The weights of a file. Raises WeightsError, BackendError."""
        engine = open_engine(Path(path), device=device, backend=backend, threads=threads)
        return cls(engine, threshold=threshold, tta=tta)

    def __call__(self, image: Picture) -> Segmentation:
        """Segment one image.

        image    a path, a PIL image, or an array (h, w, 3) or (h, w) of uint8
        Raises InputError.
        """
        pixels = to_pixels(image)
        probability = predict_probability(self.engine, pixels, tta=self.tta)
        return Segmentation(binarise(probability, self.threshold, self.cleaning), probability, self.threshold)


def to_pixels(image: Picture) -> np.ndarray:
    """Any picture the API takes -> (h, w, 3) uint8 RGB. Raises InputError."""
    from ascseg_cli.data.decode import read_pixels

    if isinstance(image, (str, Path)):
        return read_pixels(Path(image))
    if not isinstance(image, np.ndarray):
        image = _from_pillow(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(
            f"the array is {image.dtype} {image.shape}; it must be uint8 (h, w, 3) RGB or (h, w) grey",
            "convert it first; floats are never guessed to be 0..1 or 0..255",
        )
    if image.size == 0:
        raise InputError(f"the array {image.shape} holds no pixel")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image)


def _from_pillow(image: object) -> np.ndarray:
    """Upright pixels (h, w, 3) or (h, w) uint8 of a PIL image. Raises InputError."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise InputError(f"{type(image).__name__} is no image", "give a path, a PIL image or a uint8 array")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise InputError(f"{image.format} with {frames} frames or pages", "give one of them: image.copy()")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow's own conversion cuts at 255
        return np.rint(np.asarray(upright) / 257).astype(np.uint8)
    if upright.mode in ("I", "F"):
        raise InputError(f"the PIL image has mode {upright.mode}, whose range nothing tells", "convert it first")
    return np.asarray(upright.convert("RGB"))
