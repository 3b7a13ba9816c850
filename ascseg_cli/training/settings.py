"""Every setting of a training run, with its default, checked in one place and kept with the run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LENGTHS = ("steps", "epochs", "minutes")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


def _chance(default: float, what: str) -> Any:
    return Field(default=default, ge=0, le=1, description=f"chance of {what}")


class Augmentation(_Settings):
    """How far an image may be changed each time it is drawn; every figure is the largest change, or a chance."""

    flips: Literal["none", "horizontal", "both"] = "both"
    turns: bool = Field(default=True, description="quarter turns too")
    rotation: float = Field(default=30.0, ge=0, le=180, description="degrees")
    zoom: float = Field(default=1.5, ge=1, description="in or out, factor")
    stretch: float = Field(default=1.3, ge=1, description="width against height, factor")
    shift: float = Field(default=0.1, ge=0, le=0.5, description="share of the side")
    brightness: float = Field(default=0.1, ge=0, le=1, description="of full scale")
    contrast: float = Field(default=1.25, ge=1, description="factor")
    gamma: float = Field(default=1.25, ge=1, description="exponent")
    tint: float = Field(default=1.1, ge=1, description="of each colour channel by itself, factor")
    saturation: float = Field(default=1.3, ge=1, description="factor")
    blur: float = Field(default=1.0, ge=0, le=1, description="share of a 3×3 mean")
    noise: float = Field(default=0.02, ge=0, le=1, description="standard deviation, of full scale")
    motion: float = _chance(0.05, "motion blur")
    coarse: float = _chance(0.15, "detail lost by shrinking and enlarging")
    jpeg: float = _chance(0.15, "blocks of a JPEG of low quality")
    cutout: float = _chance(0.1, "grey boxes before the object, which still counts whole")
    frame: float = _chance(0.05, "a black round or octagonal frame, where the mask ends too")
    vignette: float = _chance(0.1, "light falling off to the corners")
    hairs: float = _chance(0, "hairs")
    ink: float = _chance(0, "lines of a pen on skin")
    ruler: float = _chance(0, "a ruler's ticks")
    highlights: float = _chance(0, "white spots of a lamp on wet tissue")
    box: float = _chance(0, "a box with writing in a corner")
    speckle: float = _chance(0, "grain of ultrasound")
    shadow: float = _chance(0, "shadows of ultrasound")
    gain: float = _chance(0, "brightness changing with depth")


class Stage(_Settings):
    """A share of a run in which all batches have one shape; it ends where `end` of the run is done."""

    number: int
    end: float
    size: int
    batch: int


class Settings(_Settings):
    """How a network is trained; the length is one of `steps`, `epochs` and `minutes`, which ends by the clock."""

    variant: Literal["tiny", "small", "base"] = "tiny"
    size: int = Field(default=256, ge=16, le=4096, multiple_of=16, description="the network's input, px")
    drawn_size: int = Field(
        default=320, ge=16, le=4096, description="images are kept at this size and augmented from it, px"
    )
    steps: int | None = Field(default=None, ge=1, description="length of the run in optimiser steps")
    epochs: float | None = Field(default=None, gt=0, description="length of the run in passes over the images")
    minutes: float | None = Field(default=None, gt=0, description="length of the run by the clock")
    batch: int = Field(default=16, ge=2, description="images in one step")
    early_share: float = Field(default=0.0, ge=0, lt=1, description="share of the run trained at early_size first")
    early_size: int = Field(default=128, ge=16, multiple_of=16, description="a smaller input: cheaper steps, px")
    early_batch: int = Field(default=16, ge=2)
    rate: float = Field(default=3e-3, gt=0, le=1, description="largest learning rate")
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the run over which the rate rises")
    decay: float = Field(default=1e-2, ge=0, description="AdamW's weight decay; none on biases, norms and A")
    clip: float = Field(default=5.0, gt=0, description="largest gradient norm")
    averaging: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the averaged weights once fully ramped"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="of the first weights, the order and the augmentation"
    )
    checks: int = Field(default=10, ge=1, description="validations, the last one at the end")
    teacher: Literal["none", "efficientnet-lite2"] = Field(
        default="none", description="a larger network, trained first, whose opinion softens the targets"
    )
    teacher_share: float = Field(
        default=0.5, ge=0, le=1, description="share of the teacher's probability in the targets"
    )
    teacher_epochs: float = Field(default=60.0, gt=0, description="passes over the images that train the teacher")
    augmentation: Augmentation = Augmentation()

    def stages(self) -> list[Stage]:
        """The stages of the run, in order."""
        late = Stage(number=1, end=1, size=self.size, batch=self.batch)
        early = Stage(number=0, end=self.early_share, size=self.early_size, batch=self.early_batch)
        return [early, late] if self.early_share else [late]

    @model_validator(mode="after")
    def _one_length(self) -> Settings:
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of steps, epochs and minutes, not {' and '.join(given) or 'none'}")
        return self


class RunSettings(Settings):
    """A run as the command knows it: how the network is trained, and on what. Its text is settings.toml."""

    data: str = Field(description="the data set's folder")
    start: str | None = Field(
        default=None, alias="from", description="weights to start from: a data set's name, or a file"
    )
    split_file: str | None = Field(default=None, description="CSV `image,part`: the part of each image")
    group_by: str | None = Field(
        default=None, description="what must stay in one part: FILE.csv:COLUMN, or a regular expression"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    backend: str = Field(default="auto", description="auto, reference, cpu or gpu")
    save_minutes: float = Field(default=5.0, gt=0, description="a checkpoint at least as often as this")


_SKIN = Augmentation(vignette=0.2, frame=0.1, hairs=0.25, ink=0.1, ruler=0.1)

# What a set's images allow and may meet elsewhere: ultrasound has an up and a down, and no colour.
AUGMENTATION: dict[str, Augmentation] = {
    "isic2017": _SKIN,
    "isic2018": _SKIN,
    "ph2": _SKIN,
    "kvasir": Augmentation(motion=0.15, frame=0.2, vignette=0.15, highlights=0.25, box=0.15),
    "busi": Augmentation(
        flips="horizontal", turns=False, rotation=15, zoom=1.5, stretch=1.35, tint=1, saturation=1, gamma=1.4,
        motion=0, frame=0, vignette=0, speckle=0.25, shadow=0.25, gain=0.3,
    ),
}  # fmt: skip


def augmentation_for(*datasets: str) -> Augmentation:
    """The default augmentation of the first data set that is known, else of any other folder."""
    return next((AUGMENTATION[name] for name in datasets if name in AUGMENTATION), Augmentation())
