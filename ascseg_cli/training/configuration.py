"""From a TOML file, flags and the data to the settings of a run, and back to a text that gives them again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ascseg_cli.errors import UsageError
from ascseg_cli.network.metadata import Metadata
from ascseg_cli.training.settings import LENGTHS, Augmentation, RunSettings, augmentation_for
from ascseg_cli.weights.naming import did_you_mean, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Given = dict[str, Any]

_NOT_COMPARED = ("data", "device")  # a folder may have moved; the images themselves are compared
_STEPS = {"scratch": (100, 3000, 15000), "tuned": (20, 200, 3000)}  # epochs, but steps not fewer and not more


def read_file(path: Path) -> Given:
    """The settings that a TOML file gives. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"--config {path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} is no TOML: {error}") from error


def read_pair(text: str) -> Given:
    """`KEY=VALUE` of `--set`, the value in TOML (a bare word is a text): {"rate": 0.001}. Raises UsageError."""
    key, mark, value = text.partition("=")
    if not mark or not all(part.isidentifier() for part in key.strip().split(".")):
        raise UsageError(f"--set {text!r} is not KEY=VALUE", "for example: --set augmentation.rotation=10")
    try:
        return tomllib.loads(f"{key.strip()} = {value.strip()}")
    except (ValueError, RecursionError):
        return tomllib.loads(f"{key.strip()} = {json.dumps(value.strip())}")


def merged(*layers: Mapping[str, Any]) -> Given:
    """Later layers win; a length given later replaces an earlier one of another kind."""
    result: Given = {}
    for layer in layers:
        if any(name in layer for name in LENGTHS):
            result = {key: value for key, value in result.items() if key not in LENGTHS}
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = {**result[key], **value} if both else value
    return result


def defaults(images: int, layout: str, start: Metadata | None) -> Given:
    """What the data and the weights to start from suggest where the user says nothing.

    images  in the training part
    layout  of the data set's folder
    """
    batch = next((b for b in (16, 8, 4) if 4 * b <= images), 2)
    epochs, fewest, most = _STEPS["tuned" if start else "scratch"]
    steps = min(max(epochs * images // batch, fewest), most)
    chosen: Given = {"batch": batch, "early_batch": batch, "steps": steps}
    chosen["augmentation"] = augmentation_for(layout, (start and start.dataset) or "").model_dump()
    if start is not None:
        chosen |= {"variant": start.variant, "size": start.preprocessing.size[0], "rate": 1e-3}
    return chosen


def resolve(given: Given, suggested: Given) -> RunSettings:
    """The settings of a run: what the user gave, over what the data suggest. Raises UsageError."""
    whole = merged(suggested, given)
    if "drawn_size" not in whole and isinstance(whole.get("size"), int):
        whole["drawn_size"] = round(1.25 * whole["size"])
    try:
        return RunSettings.model_validate(whole)
    except ValidationError as error:
        raise _as_usage_error(error) from error


def check_given(given: Given) -> None:
    """Raise UsageError for a key that no setting has and for a wrong value, before anything is read."""
    for prefix, model, keys in (("", RunSettings, given), ("augmentation.", Augmentation, _inner(given))):
        unknown = [key for key in keys if key not in _names(model)]
        if unknown:
            name = printable(unknown[0])
            raise UsageError(f"there is no setting {prefix}{name}", did_you_mean(name, _names(model)))
    resolve(given, {"data": "", "steps": 1})


def contradictions(given: Given, saved: RunSettings) -> list[str]:
    """Where what the user gives now differs from a run's own settings, in words.

    Raises UsageError for wrong values.
    """
    had = saved.model_dump(by_alias=True)
    asked = resolve(given, had).model_dump(by_alias=True)
    return [
        f"{key} is {had_value} there, {value} here"
        for key, had_value, value in _compared(had, asked, given)
        if had_value != value
    ]


def to_toml(settings: RunSettings) -> str:
    """The text of settings.toml: every setting but those that are None; `read_file` gives the same back."""
    values = settings.model_dump(by_alias=True)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [
        f"{key} = {_literal(value)}" for key, value in values.items() if key not in tables and value is not None
    ]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def template() -> str:
    """A TOML text with every setting, its default and its meaning, to start from."""
    lines = ["# Settings of ascseg train. Those behind a # are chosen by the data set where nothing is said."]
    for prefix, model in (("", RunSettings), ("augmentation", Augmentation)):
        lines += ["", f"[{prefix}]"] if prefix else [""]
        for name, field in model.model_fields.items():
            if name != "augmentation":
                open_ = field.default is None or field.is_required() or name in ("batch", "early_batch")
                value = "…" if field.default is None or field.is_required() else _literal(field.default)
                text = f"{'# ' if open_ else ''}{field.alias or name} = {value}"
                lines.append(f"{text:32}# {field.description}" if field.description else text)
    return "\n".join(lines) + "\n"


def _compared(had: Given, asked: Given, given: Given) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of every setting in `given`."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{k}", a, b) for k, a, b in _compared(had[key], asked[key], dict(value)))
        elif key not in _NOT_COMPARED:
            yield key, had[key], asked[key]


def _inner(given: Given) -> Given:
    table = given.get("augmentation", {})
    if not isinstance(table, Mapping):
        raise UsageError("augmentation must be a table", "for example: --set augmentation.rotation=10")
    return dict(table)


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _literal(value: Any) -> str:
    # JSON's texts, numbers and booleans are TOML's, but for DEL, which no setting holds.
    return json.dumps(value, ensure_ascii=False)


def _as_usage_error(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    got = f", got {printable(first['input'])}" if where and first["type"] != "missing" else ""
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(
        f"setting {where}: {message}{got}" if where else message, "ascseg train --print-config shows all"
    )
