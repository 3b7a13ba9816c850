"""What a weights file says of itself: the JSON text under the key `ascseg`, specified in docs/weights.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from ascseg_cli.errors import ShapeError, WeightsError
from ascseg_cli.network.variants import check_channels, variant_of

FORMAT: Literal[1] = 1
KEY = "ascseg"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    # Unknown keys are kept, so that a later release may add one without a new format number.
    model_config = ConfigDict(extra="allow", frozen=True)


class Preprocessing(_Part):
    """How the pixels of an image become the network's input."""

    rule: Literal["squeeze_antialias", "stretch_bilinear"]
    size: tuple[StrictInt, StrictInt]
    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    std: tuple[Finite, Finite, Finite] = (1.0, 1.0, 1.0)

    @field_validator("size")
    @classmethod
    def _multiples_of_16(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(s < 16 or s % 16 or s > 4096 for s in size):
            raise ValueError(f"size is {size[0]}×{size[1]} px; both must be multiples of 16, from 16 to 4096")
        return size

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError("std must be positive")
        return std


class Score(_Part):
    """One measured figure with the words that define it."""

    part: str
    metric: str
    value: Finite
    protocol: str
    images: int | None = None


class Feature(_Part):
    """One appearance figure over the training images; data.appearance says which quantiles low and high are."""

    mean: Finite
    std: Finite
    low: Finite
    high: Finite


class Metadata(_Part):
    """Everything that must travel with the numbers. Format 1."""

    format: Literal[1] = FORMAT
    name: Annotated[str, Field(min_length=1, max_length=200)]
    dataset: str | None = None
    variant: str
    channels: tuple[StrictInt, StrictInt, StrictInt, StrictInt]
    preprocessing: Preprocessing
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    licence: str = ""
    citation: str = ""
    source: str = ""
    split: dict[str, Any] = {}
    training: dict[str, Any] = {}
    scores: tuple[Score, ...] = ()
    statistics: dict[str, Feature] = {}
    training_images: str | None = None

    @model_validator(mode="after")
    def _variant_fits(self) -> Metadata:
        try:
            known = variant_of(check_channels(self.channels))
        except ShapeError as error:
            raise ValueError(error.message) from error
        if self.variant != known:
            raise ValueError(f"variant is {self.variant!r}, but channels {list(self.channels)} are {known!r}")
        return self

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """Read and check the JSON text of a weights file. Raises WeightsError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "text"
            if where == "format":
                raise WeightsError(
                    f"the metadata's format is {str(first['input'])[:40]}; this release reads format {FORMAT}",
                    "upgrade ascseg",
                ) from error
            raise WeightsError(
                f"the metadata is not of format {FORMAT}: {where[:80]}: {first['msg'][:200]}"
            ) from error

    def to_json(self) -> str:
        """One line of JSON, the same text for the same content."""
        return self.model_dump_json()
