"""Where the store looks, and what it says of what it finds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ascseg_cli.errors import WeightsError
from ascseg_cli.weights import store
from ascseg_cli.weights.manifest import Entry, Manifest

Make = Callable[..., Entry]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the wheel's weights."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(store, "SHIPPED", folder)
    return folder


def put(source: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, place))


def test_a_shipped_file_needs_no_cache(entry_for: Make, shipped: Path, weights_file: Path) -> None:
    entry = entry_for()
    with pytest.raises(WeightsError, match="its file isn't on this machine and the manifest names no URL"):
        store.locate_entry(entry)
    path = put(weights_file, shipped / str(entry.file))
    assert store.look_up(entry) == ("shipped", path)
    assert not store.weights_folder().exists()


def test_a_whole_cached_file_outdoes_a_damaged_shipped_one(
    entry_for: Make, shipped: Path, weights_file: Path
) -> None:
    entry = entry_for()
    put(weights_file, shipped / str(entry.file)).write_bytes(b"damaged")
    assert store.look_up(entry)[0] == "damaged"
    with pytest.raises(WeightsError, match="is damaged: it has 7 bytes, the manifest says") as caught:
        store.locate_entry(entry)
    assert caught.value.hint == "delete it and reinstall ascseg"
    path = put(weights_file, store.cached_path(entry))
    assert store.look_up(entry) == ("cached", path)


def test_releases_of_one_name_lie_side_by_side(entry_for: Make) -> None:
    older, newer = entry_for(), entry_for(sha256="0" * 64)
    assert store.cached_path(older) != store.cached_path(newer)


def test_the_folder_is_the_user_s_cache_or_ascseg_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASCSEG_HOME", str(tmp_path))
    assert store.weights_folder() == tmp_path / "weights"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCSEG_HOME", "here")
    assert store.weights_folder() == tmp_path / "here" / "weights"
    monkeypatch.setenv("ASCSEG_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.weights_folder().is_relative_to(tmp_path)
    assert store.weights_folder().parts[-2:] == ("ascseg", "weights")


def test_locate_goes_by_set_and_variant(
    entry_for: Make, shipped: Path, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_for()
    announced = Entry(name="ph2-tiny", dataset="ph2", variant="tiny", default=True, licence="x", citation="y")
    monkeypatch.setattr(store, "load_manifest", lambda: Manifest(format=1, weights=[entry, announced]))
    path = put(weights_file, shipped / str(entry.file))
    assert store.locate("kvasir") == store.locate("kvasir", "tiny") == path
    with pytest.raises(WeightsError, match="ph2-tiny: not released yet: the manifest names neither") as caught:
        store.locate("ph2")
    assert caught.value.hint == "give your own with --weights FILE; released are: kvasir-tiny"
    with pytest.raises(WeightsError, match="kvasir has no weights of the variant base"):
        store.locate("kvasir", "base")
    with pytest.raises(WeightsError, match="no data set is named busy"):
        store.locate("busy")
    assert [state for _, state, _, _ in store.report()] == ["ok", "ok"]
    path.write_bytes(b"")
    assert [state for _, state, _, _ in store.report()] == ["ok", "missing", "broken"]
