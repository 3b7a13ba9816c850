"""Where weights lie on this machine, and whether they are what the manifest says."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ascseg_cli.errors import WeightsError
from ascseg_cli.weights.manifest import Entry, load_manifest

SHIPPED = Path(__file__).parent / "files"
State = Literal["shipped", "cached", "damaged", "not fetched", "not released"]


def locate(dataset: str, variant: str | None = None) -> Path:
    """The verified weights file of a data set: shipped with the package, or fetched before.

    variant  tiny, small or base; None picks the set's default
    Never goes online. Raises WeightsError where the name is unknown, or the file isn't here or is damaged.
    """
    return locate_entry(load_manifest().of(dataset, variant))


def locate_entry(entry: Entry) -> Path:
    """The verified file of one manifest entry. Raises WeightsError with the way to get it."""
    state, path = look_up(entry)
    if path is not None and state != "damaged":
        return path
    raise missing(entry, state, path)


def look_up(entry: Entry) -> tuple[State, Path | None]:
    """Whether an entry's file is here and whole, and where; a whole cached file outdoes a damaged shipped one."""
    if not entry.released:
        return "not released", None
    places: tuple[tuple[State, Path], ...] = (("shipped", shipped_path(entry)), ("cached", cached_path(entry)))
    present = [(state, path) for state, path in places if path.exists()]
    whole = next(((state, path) for state, path in present if is_whole(path, entry)), None)
    if whole is not None:
        return whole
    return ("damaged", present[0][1]) if present else ("not fetched", None)


def missing(entry: Entry, state: State, path: Path | None) -> WeightsError:
    """Why an entry's file can't be used, and what to do."""
    fetch = f"run: ascseg weights fetch {entry.name}"
    if state == "not released":
        return WeightsError(
            f"{entry.name}: not released yet: the manifest names neither a file nor a URL",
            f"give your own with --weights FILE; {_released_names()}",
        )
    if state == "damaged" and path is not None:
        remedy = f"{fetch}, which replaces it" if entry.urls else "delete it and reinstall ascseg"
        return WeightsError(f"{path} is damaged: {mismatch(path, entry)}", remedy)
    if entry.urls:
        return WeightsError(f"{entry.name} isn't on this machine", fetch)
    return WeightsError(
        f"{entry.name}: its file isn't on this machine and the manifest names no URL",
        f"reinstall ascseg, or put {entry.file} at {cached_path(entry)}",
    )


def _released_names() -> str:
    names = [entry.name for entry in load_manifest().weights if entry.released]
    return f"released are: {', '.join(names)}" if names else "none is released yet"


def is_whole(path: Path, entry: Entry) -> bool:
    """Whether a file has the manifest's size and hash."""
    return not mismatch(path, entry)


def mismatch(path: Path, entry: Entry) -> str:
    """How a file differs from its manifest entry, in words; empty if it doesn't."""
    try:
        size = path.stat().st_size
        if size != entry.size:
            return f"it has {size:,} bytes, the manifest says {entry.size or 0:,}"
        digest = file_sha256(path)
    except OSError as error:
        return f"it can't be read ({error.strerror or error})"
    return "" if digest == entry.sha256 else f"its sha256 is {digest}, the manifest says {entry.sha256}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def shipped_path(entry: Entry) -> Path:
    """Where the wheel carries an entry's file, if it does."""
    return SHIPPED / str(entry.file)


def cached_path(entry: Entry) -> Path:
    """Where an entry's file lies once fetched; the hash in its name keeps releases apart."""
    stem = str(entry.file).removesuffix(".safetensors")
    return weights_folder() / f"{stem}-{str(entry.sha256)[:8]}.safetensors"


def weights_folder() -> Path:
    """The folder of fetched weights: `ASCSEG_HOME`/weights, else in the user's cache directory."""
    home = os.environ.get("ASCSEG_HOME", "").strip()
    if home:
        return Path(home).expanduser().absolute() / "weights"
    from platformdirs import user_cache_path

    return user_cache_path("ascseg", appauthor=False) / "weights"


def report() -> Iterator[tuple[str, Literal["ok", "missing", "broken"], str, str]]:
    """For `ascseg doctor`: the store's folder, and the weights by state, as (name, state, detail, remedy)."""
    folder = weights_folder()
    if _writable(folder):
        yield "weights folder", "ok", str(folder), ""
    else:
        words = f"{folder} can't be written: shipped weights work, others can't be fetched"
        yield "weights folder", "missing", words, "set ASCSEG_HOME to a folder of yours"
    states = {entry.name: look_up(entry) for entry in load_manifest().weights}
    ready = [name for name, (state, _) in states.items() if state in ("shipped", "cached")]
    damaged = [name for name, (state, _) in states.items() if state == "damaged"]
    if ready:
        yield "weights", "ok", f"ready: {', '.join(ready)}", ""
    else:
        yield "weights", "missing", "none on this machine", "run: ascseg weights list"
    if damaged:
        yield "weights", "broken", f"damaged: {', '.join(damaged)}", "run: ascseg weights verify"


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or it can be made in the nearest folder above that exists."""
    nearest = next((above for above in (folder, *folder.parents) if above.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False
