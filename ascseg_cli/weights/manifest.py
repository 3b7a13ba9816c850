"""weights_manifest.toml: every weights file that we know by name, and what makes it the right one."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ascseg_cli.errors import UnknownWeightsError, WeightsError
from ascseg_cli.network.checkpoint import MOST_BYTES
from ascseg_cli.network.metadata import Preprocessing, Score
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.weights.naming import did_you_mean, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "weights_manifest.toml"
MOST_MANIFEST_BYTES = 2**20
RELEASE = ("file", "size", "sha256", "split", "preprocessing", "threshold", "scores")


class Entry(BaseModel):
    """One weights file, or the announcement of one: without `file` it isn't released yet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
    dataset: Annotated[str, Field(pattern=r"^[a-z0-9]+$", max_length=30)]
    variant: str
    default: bool
    licence: Annotated[str, Field(min_length=1)]
    citation: Annotated[str, Field(min_length=1)]
    file: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,80}\.safetensors$")] | None = None
    size: Annotated[int, Field(gt=0, le=MOST_BYTES)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    urls: list[str] = []
    split: dict[str, Any] | None = None
    preprocessing: Annotated[Preprocessing, Field(strict=False)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    scores: list[Score] | None = None

    @property
    def released(self) -> bool:
        return self.file is not None

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, variant: str) -> str:
        if variant not in VARIANTS:
            raise ValueError(f"variant is {printable(variant)}; must be one of {', '.join(VARIANTS)}")
        return variant

    @field_validator("urls")
    @classmethod
    def _web_addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            parts = urlsplit(url)  # raises ValueError itself on a broken address
            if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
                raise ValueError(
                    f"{printable(url)} is no address; must be https://… or http://… without a password"
                )
            if not url.isascii() or re.search(r"[\s\x00-\x1f]", url):
                raise ValueError(f"{printable(url)} holds characters that an address must escape")
        return urls

    @model_validator(mode="after")
    def _released_whole(self) -> Entry:
        given = [key for key in RELEASE if getattr(self, key) is not None]
        if given and len(given) < len(RELEASE):
            missing = ", ".join(key for key in RELEASE if key not in given)
            raise ValueError(f"{self.name} has {given[0]} but lacks {missing}; a released file needs all of them")
        if self.urls and not given:
            raise ValueError(f"{self.name} has urls but no file")
        for part in (self.preprocessing, *(self.scores or ())):
            for key in (part and part.model_extra) or {}:
                raise ValueError(f"{self.name} has the unknown key {printable(key)}")
        return self


class Manifest(BaseModel):
    """All entries; names are unique, and each data set has exactly one default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Annotated[int, Field(ge=1, le=1)]
    weights: list[Entry]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for what, values in (
            ("name", [e.name for e in self.weights]),
            ("file", [e.file for e in self.weights if e.file]),
            ("data set and variant", [f"{e.dataset} {e.variant}" for e in self.weights]),
        ):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice:
                raise ValueError(f"two entries have the {what} {twice}")
        for dataset in self.datasets:
            defaults = sum(entry.default for entry in self.weights if entry.dataset == dataset)
            if defaults != 1:
                raise ValueError(f"{dataset} has {defaults} default entries; must be one")
        return self

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in the manifest's order."""
        return list(dict.fromkeys(entry.dataset for entry in self.weights))

    def find(self, name: str) -> Entry:
        """The entry of this name, or the default of the data set of this name. Raises WeightsError."""
        for entry in self.weights:
            if name == entry.name or (name == entry.dataset and entry.default):
                return entry
        known = [*self.datasets, *(entry.name for entry in self.weights)]
        raise UnknownWeightsError(f"no weights are named {printable(name)}", did_you_mean(name, known))

    def terms_of(self, dataset: str) -> dict[str, str]:
        """Licence and citation of a data set. Raises WeightsError."""
        entry = self.of(dataset)
        return {"licence": entry.licence, "citation": entry.citation}

    def of(self, dataset: str, variant: str | None = None) -> Entry:
        """A data set's default entry, or its entry of one variant. Raises WeightsError."""
        entries = [entry for entry in self.weights if entry.dataset == dataset]
        if not entries:
            raise UnknownWeightsError(
                f"no data set is named {printable(dataset)}", did_you_mean(dataset, self.datasets)
            )
        for entry in entries:
            if entry.variant == variant or (variant is None and entry.default):
                return entry
        variants = [entry.variant for entry in entries]
        raise UnknownWeightsError(
            f"{dataset} has no weights of the variant {printable(variant)}", did_you_mean(str(variant), variants)
        )


def manifest_path() -> Path:
    """Where the manifest lies: in the package once installed, at the top level of a source checkout."""
    packaged = Path(__file__).with_name(FILE_NAME)
    return packaged if packaged.exists() else Path(__file__).resolve().parents[2] / FILE_NAME


@lru_cache(maxsize=1)
def load_manifest() -> Manifest:
    """The manifest of this installation, read once. Raises WeightsError."""
    return read_manifest(manifest_path())


def read_manifest(path: Path) -> Manifest:
    """Read and check one manifest. Raises WeightsError: what is wrong, and in which entry."""
    try:
        if path.stat().st_size > MOST_MANIFEST_BYTES:
            raise WeightsError(f"{path} is longer than {MOST_MANIFEST_BYTES:,} bytes; it is no manifest")
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path} can't be read: {reason}", "reinstall ascseg") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: str, where: str) -> Manifest:
    """Check a manifest's text; `where` is named in errors. Raises WeightsError."""
    try:
        return Manifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"{where} is no TOML: {printable(error)}") from error
    except (RecursionError, ValueError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else printable(error)
        raise WeightsError(f"{where}: {reason}") from error


def _first(error: ValidationError) -> str:
    """The first fault in words: entry, key, rule; an unknown key with the nearest known one."""
    fault = error.errors(include_url=False)[0]
    parts = [f"entry {part + 1}" if isinstance(part, int) else str(part) for part in fault["loc"]]
    inside = len(parts) > 1 and parts[0] == "weights"
    place = printable(" ".join(parts[1:] if inside else parts))
    if fault["type"] == "extra_forbidden":
        known = Entry.model_fields if inside else Manifest.model_fields
        return f"{place}: unknown key; {did_you_mean(parts[-1], known)}"
    words = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {words}" if place else words
