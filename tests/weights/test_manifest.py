"""The manifest of this installation, and manifests with every kind of fault: one line each, with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ascseg_cli.errors import WeightsError
from ascseg_cli.network import checkpoint
from ascseg_cli.weights import store
from ascseg_cli.weights.checking import differences
from ascseg_cli.weights.entry import entry_of, entry_text, write_entries
from ascseg_cli.weights.manifest import Entry, load_manifest, manifest_path, parse_manifest, read_manifest

DATASETS = ["isic2017", "isic2018", "ph2", "kvasir", "busi"]
ANNOUNCED = """
[[weights]]
name = "kvasir-tiny"
dataset = "kvasir"
variant = "tiny"
default = true
licence = "research"
citation = "Jha"
"""
RELEASED = (
    ANNOUNCED
    + f"""
file = "kvasir-tiny.safetensors"
size = 900000
sha256 = "{"0f" * 32}"
urls = ["https://example.org/kvasir-tiny.safetensors"]
threshold = 0.5
split = {{ rule = "by name", train = 800 }}
preprocessing = {{ rule = "squeeze_antialias", size = [256, 256], mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2] }}
scores = [{{ part = "validation", metric = "pooled_iou", value = 0.7, protocol = "single pass", images = 100 }}]
"""
)


def test_the_five_sets_are_known_with_terms_and_a_default() -> None:
    manifest = load_manifest()
    assert manifest.datasets == DATASETS
    for name in DATASETS:
        entry = manifest.of(name)
        assert manifest.find(name) == manifest.find(entry.name) == entry
        assert re.search(r"\b20\d\d\b", entry.citation)
        assert len(entry.licence) > 10


def test_every_shipped_file_is_what_its_entry_says() -> None:
    """Both ways: a released entry without URL has its file here, and no file lies here without an entry."""
    entries = {entry.file: entry for entry in load_manifest().weights if entry.released}
    shipped = sorted(path.name for path in store.SHIPPED.glob("*.safetensors"))
    assert [name for name in shipped if name not in entries] == []
    assert [name for name, entry in entries.items() if name not in shipped and not entry.urls] == []
    for name in shipped:
        assert store.mismatch(store.SHIPPED / name, entries[name]) == ""
        content = checkpoint.read(store.SHIPPED / name)
        assert differences(content.metadata, entries[name]) == []


def test_a_released_entry_is_read_whole() -> None:
    entry = parse_manifest("format = 1\n" + RELEASED, "m").find("kvasir")
    assert entry.released
    assert entry.preprocessing is not None
    assert entry.preprocessing.size == (256, 256)
    assert entry.scores is not None
    assert entry.scores[0].value == 0.7


def replaced(old: str, new: str) -> str:
    assert old in RELEASED
    return "format = 1\n" + RELEASED.replace(old, new)


FAULTS = {
    "no TOML": ("format = = 1", "m is no TOML: Invalid value"),
    "empty": ("", "m: format: Field required"),
    "deep": ("a = " + "[" * 100_000, "m: maximum recursion|m is no TOML|m: .*nested"),
    "format": ("format = 2\nweights = []", "m: format: Input should be less than or equal to 1"),
    "top key": ("format = 1\nweight = []\nweights = []", "m: weight: unknown key; did you mean weights"),
    "no table": ("format = 1\nweights = 3", "m: weights: Input should be a valid list"),
    "unknown key": (replaced('urls = ["https', 'url = ["https'), "entry 1 url: unknown key; did you mean urls"),
    "unknown key within": (replaced("mean = [0.5, 0.5, 0.5]", "means = [1, 1, 1]"), "has the unknown key means"),
    "missing": (replaced('licence = "research"', ""), "entry 1 licence: Field required"),
    "half released": (replaced("size = 900000", ""), "kvasir-tiny has file but lacks size; a released file"),
    "urls alone": ("format = 1" + ANNOUNCED + 'urls = ["https://example.org/x"]', "has urls but no file"),
    "hash": (replaced("0f" * 32, "0F" * 32), "entry 1 sha256: String should match pattern"),
    "size": (replaced("900000", "-1"), "entry 1 size: Input should be greater than 0"),
    "large": (replaced("900000", "900000000"), "entry 1 size: Input should be less than or equal to"),
    "size text": (replaced("900000", '"900000"'), "entry 1 size: Input should be a valid integer"),
    "path": (replaced("kvasir-tiny.safetensors", "../kvasir.safetensors"), "entry 1 file: String should match"),
    "folder": (replaced("kvasir-tiny.safetensors", "a/b.safetensors"), "entry 1 file: String should match"),
    "scheme": (
        replaced("https://example.org", "file:///etc"),
        "entry 1 urls: file:///etc/.* is no address; must be",
    ),
    "password": (replaced("https://example.org", "https://me:secret@example.org"), "without a password"),
    "control": (replaced("https://example.org/", "https://example.org/\\r\\nHost: x"), "must escape"),
    "variant": (replaced('"tiny"', '"huge"'), "variant is huge; must be one of tiny, small, base"),
    "threshold": (
        replaced("threshold = 0.5", "threshold = 1.5"),
        "entry 1 threshold: Input should be less than 1",
    ),
    "input size": (replaced("[256, 256]", "[256, 250]"), "multiples of 16"),
    "twice": ("format = 1" + ANNOUNCED + ANNOUNCED, "two entries have the name kvasir-tiny"),
    "no default": (replaced("default = true", "default = false"), "kvasir has 0 default entries; must be one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_manifest_is_one_line(fault: str) -> None:
    text, words = FAULTS[fault]
    with pytest.raises(WeightsError, match=words) as caught:
        parse_manifest(text, "m")
    assert "\n" not in caught.value.message
    assert "pydantic" not in caught.value.message


def test_a_manifest_that_can_not_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="can't be read: No such file"):
        read_manifest(tmp_path / "none.toml")
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="can't be read: 'utf-8' codec"):
        read_manifest(tmp_path / "m.toml")
    (tmp_path / "m.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(WeightsError, match="longer than 1,048,576 bytes"):
        read_manifest(tmp_path / "m.toml")


@pytest.mark.parametrize(("name", "near"), [("kvasri", "kvasir"), ("Kvasir", "kvasir"), ("busi-tny", "busi-tiny")])
def test_unknown_names_suggest_the_nearest(name: str, near: str) -> None:
    with pytest.raises(WeightsError, match=f"no weights are named {name}") as caught:
        load_manifest().find(name)
    assert caught.value.hint == f"did you mean {near}?"
    with pytest.raises(WeightsError) as caught:
        load_manifest().find("zzz")
    assert caught.value.hint.startswith("known names: isic2017, isic2018, ph2, kvasir, busi, ")
    with pytest.raises(WeightsError, match="kvasir has no weights of the variant hug"):
        load_manifest().of("kvasir", "hug")


def test_a_weights_file_writes_its_own_entry(weights_file: Path, tmp_path: Path) -> None:
    """The manifest keeps its comments and other entries, and the new entry agrees with the file."""
    manifest = tmp_path / "m.toml"
    manifest.write_bytes(
        b"# kept\nformat = 1\n" + ANNOUNCED.encode() + ANNOUNCED.replace("kvasir", "busi").encode()
    )
    assert write_entries(manifest, [weights_file]) == ["kvasir-tiny"]
    assert write_entries(manifest, [weights_file]) == ["kvasir-tiny"]  # again: nothing is doubled
    entries = read_manifest(manifest).weights
    assert [entry.name for entry in entries] == ["kvasir-tiny", "busi-tiny"]
    assert store.is_whole(weights_file, entries[0])
    assert differences(checkpoint.read_metadata(weights_file), entries[0]) == []
    assert manifest.read_text().startswith("# kept\nformat = 1\n")
    assert list(tmp_path.iterdir()) == [manifest]


def test_odd_texts_survive_toml(weights_file: Path, entry_for: Callable[..., Entry]) -> None:
    entry = entry_of(weights_file, {})
    entry["citation"] = 'quotes " \\ \x7f \t new\nline Mendonça 한국'
    entry["split"] = {"rule": "a = b # c", "odd key": [1, 2.5, True], "nothing": None}
    again = parse_manifest("format = 1\n" + entry_text(entry), "m").weights[0]
    assert again.citation == entry["citation"]
    assert again.split == {"rule": "a = b # c", "odd key": [1, 2.5, True]}


def test_metadata_without_terms_are_not_released(tmp_path: Path, weights_file: Path) -> None:
    content = checkpoint.read(weights_file)
    path = tmp_path / "w.safetensors"
    checkpoint.write(path, content.tensors, content.metadata.model_copy(update={"citation": ""}))
    with pytest.raises(WeightsError, match="its metadata lack citation"):
        entry_of(path, {})


def test_the_manifest_is_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manifest_path().name == "weights_manifest.toml"
    assert manifest_path().is_file()
    folder = tmp_path / "ascseg_cli" / "weights"
    folder.mkdir(parents=True)
    monkeypatch.setattr("ascseg_cli.weights.manifest.__file__", str(folder / "manifest.py"))
    assert manifest_path() == tmp_path / "weights_manifest.toml"
    (folder / "weights_manifest.toml").touch()
    assert manifest_path() == folder / "weights_manifest.toml"
