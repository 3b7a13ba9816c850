"""A small whole weights file, its manifest entry, and mirrors of it on loopback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing, Score
from ascseg_cli.weights.manifest import Entry

sys.path.insert(0, str(Path(__file__).parent))  # for `mirrors` and `made_up`, which scripts use too

from made_up import CHANNELS, random_tensors
from mirrors import Answer, Mirror


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole weights file of the tiny variant with made-up values."""
    path = tmp_path_factory.mktemp("whole") / "kvasir-tiny.safetensors"
    metadata = Metadata(
        name="kvasir-tiny",
        dataset="kvasir",
        variant="tiny",
        channels=CHANNELS,
        preprocessing=Preprocessing(rule="squeeze_antialias", size=(256, 256)),
        licence="made up",
        citation="nobody",
        split={"rule": "none", "train": 3},
        scores=(Score(part="validation", metric="pooled_iou", value=0.5, protocol="made up", images=1),),
    )
    checkpoint.write(path, random_tensors(), metadata)
    return path


@pytest.fixture
def entry_for(weights_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Entry]:
    """Makes the manifest entry of `weights_file` with the given URLs; the store lies in a fresh folder."""
    monkeypatch.setenv("ASCSEG_HOME", str(tmp_path / "home"))
    for name in (
        "ASCSEG_OFFLINE",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    content = checkpoint.read(weights_file)
    metadata = content.metadata

    def make(*urls: str, **changes: Any) -> Entry:
        facts: dict[str, Any] = {
            "name": "kvasir-tiny",
            "dataset": "kvasir",
            "variant": "tiny",
            "default": True,
            "licence": metadata.licence,
            "citation": metadata.citation,
            "file": "kvasir-tiny-test.safetensors",  # a name that no wheel ships
            "size": weights_file.stat().st_size,
            "sha256": content.sha256,
            "urls": list(urls),
            "split": metadata.split,
            "preprocessing": metadata.preprocessing,
            "threshold": metadata.threshold,
            "scores": list(metadata.scores),
        }
        return Entry.model_validate(facts | changes)

    return make


@pytest.fixture
def mirror(weights_file: Path) -> Iterator[Callable[..., Mirror]]:
    """Starts mirrors of `weights_file`; all are closed at the end."""
    started: list[Mirror] = []

    def start(*answers: Answer, content: bytes | None = None) -> Mirror:
        started.append(Mirror(weights_file.read_bytes() if content is None else content, *answers))
        return started[-1]

    yield start
    for each in started:
        each.close()
