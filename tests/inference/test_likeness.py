"""The warning about images of another kind: once, early, and only with statistics to compare with."""

from __future__ import annotations

import numpy as np

from ascseg_cli.data import appearance
from ascseg_cli.inference.likeness import Likeness
from ascseg_cli.network.metadata import Feature, Metadata


def told(metadata: Metadata, seen: list[np.ndarray]) -> Metadata:
    statistics = appearance.summarise([appearance.describe(pixels) for pixels in seen])
    return metadata.model_copy(
        update={"statistics": {name: Feature(**value) for name, value in statistics.items()}}
    )


def grounds(colour: tuple[int, int, int], seed: int, count: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        np.clip(rng.normal(colour, 25, (90, 120, 3)) + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def warnings(metadata: Metadata, pictures: list[np.ndarray]) -> list[str]:
    likeness = Likeness(metadata, len(pictures))
    said = []
    for number, pixels in enumerate(pictures):
        likeness.see(number, pixels)
        said.append(likeness.warning())
    return [text for text in [*said, likeness.warning(last=True)] if text]


def test_images_of_another_kind_are_named_once(engine) -> None:  # type: ignore[no-untyped-def]
    metadata = told(engine.metadata, grounds((190, 90, 70), 0))
    assert warnings(metadata, grounds((190, 90, 70), 1)) == []
    (text,) = warnings(metadata, grounds((40, 40, 40), 2))
    assert "unlike" in text
    assert "(green)?" in text


def test_a_few_images_are_judged_at_the_end(engine) -> None:  # type: ignore[no-untyped-def]
    likeness = Likeness(told(engine.metadata, grounds((190, 90, 70), 0)), total=5)
    likeness.see(0, grounds((40, 40, 40), 2)[0])
    assert likeness.warning() is None, "four others may still come"
    assert likeness.warning(last=True)
    assert likeness.warning(last=True) is None


def test_weights_without_statistics_or_with_others_say_nothing(engine) -> None:  # type: ignore[no-untyped-def]
    assert warnings(engine.metadata, grounds((40, 40, 40), 2, 3)) == []
    foreign = engine.metadata.model_copy(
        update={"statistics": {"sharpness": Feature(mean=0, std=1, low=0, high=1)}}
    )
    assert warnings(foreign, grounds((40, 40, 40), 2, 3)) == []
