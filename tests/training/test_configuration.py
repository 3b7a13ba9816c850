"""Settings: layers win in order, a file gives back what was written, a wrong key names the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascseg_cli.errors import UsageError
from ascseg_cli.network import checkpoint
from ascseg_cli.training.configuration import (
    check_given,
    contradictions,
    defaults,
    merged,
    read_file,
    read_pair,
    resolve,
    template,
    to_toml,
)
from ascseg_cli.training.files import SETTINGS, RunFolder
from ascseg_cli.training.material import settle
from ascseg_cli.training.settings import Augmentation, RunSettings, augmentation_for
from ascseg_cli.weights.store import SHIPPED

DATA = {"data": "d"}


def test_later_layers_win_and_a_length_replaces_a_length() -> None:
    suggested = {"steps": 500, "batch": 8, "augmentation": {"rotation": 15.0, "noise": 0.0}}
    got = merged(suggested, {"epochs": 3, "augmentation": {"noise": 0.1}}, {"batch": 4})
    assert got == {"epochs": 3, "batch": 4, "augmentation": {"rotation": 15.0, "noise": 0.1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rate=0.001", {"rate": 0.001}),
        ("augmentation.rotation = 10", {"augmentation": {"rotation": 10}}),
        ("augmentation.turns=false", {"augmentation": {"turns": False}}),
        ("variant=small", {"variant": "small"}),
        ('data="a \\" b"', {"data": 'a " b'}),
        ("data=C:\\photos", {"data": "C:\\photos"}),
    ],
)
def test_one_setting_on_the_command_line(text: str, value: object) -> None:
    assert read_pair(text) == value


@pytest.mark.parametrize("text", ["rate", "=3", "a b=3", "rate.=3"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        read_pair(text)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"bach": 4}, "there is no setting bach", "did you mean batch?"),
        ({"form": "kvasir"}, "there is no setting form", "did you mean from?"),
        (
            {"augmentation": {"rotatoin": 4}},
            r"there is no setting augmentation\.rotatoin",
            "did you mean rotation?",
        ),
        ({"augmentation": 4}, "augmentation must be a table", "--set augmentation.rotation=10"),
    ],
)
def test_an_unknown_key_names_the_nearest(given: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_given(given)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": 3}, "setting data: .*string, got 3"),
        ({"from": 3}, "setting from: .*string, got 3"),
        ({"split_file": 3}, "setting split_file: .*string, got 3"),
        ({"group_by": 3}, "setting group_by: .*string, got 3"),
        ({"variant": ["tiny"]}, "setting variant: "),
        ({"rate": {"a": 1}}, "setting rate: "),
    ],
)
def test_wrong_kinds_of_values_are_refused_before_anything_is_read(
    tmp_path: Path, given: dict[str, object], message: str
) -> None:
    new, going_on = RunFolder(tmp_path / "new"), RunFolder(tmp_path / "going_on")
    going_on.write(SETTINGS, to_toml(resolve({**DATA, "steps": 5}, {})))
    for folder in (new, going_on):
        with pytest.raises(UsageError, match=message):
            settle({**DATA, **given}, folder, resume=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of steps, epochs and minutes, not none"),
        ({"steps": 1, "minutes": 1}, "not steps and minutes"),
        ({"steps": 1, "size": 100}, r"setting size: .*multiple of 16, got 100"),
        ({"steps": 1, "batch": 1}, "setting batch: .*greater than or equal to 2, got 1"),
        ({"steps": 1, "rate": float("inf")}, "setting rate: .*finite"),
        ({"steps": 1, "rate": 1e308}, "setting rate: .*less than or equal to 1"),
        ({"steps": 1, "seed": 2**64}, "setting seed: .*less than 9223372036854775808"),
        ({"steps": 1, "augmentation": {"flips": "all"}}, r"setting augmentation\.flips: .*got all"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve({**DATA, **given}, {})


def test_the_saved_text_gives_the_same_settings(tmp_path: Path) -> None:
    awkward = {"data": 'a "b"\\c\n한', "from": "kvasir", "epochs": 1e-7, "augmentation": {"noise": 1e-5}}
    settings = resolve(awkward, {})
    (tmp_path / "settings.toml").write_text(to_toml(settings), encoding="utf-8")
    assert resolve(read_file(tmp_path / "settings.toml"), {}) == settings


def test_the_template_holds_every_setting_and_its_default(tmp_path: Path) -> None:
    text = template().replace("# data = …", 'data = "d"').replace("# steps = …", "steps = 7")
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    given = read_file(tmp_path / "c.toml")
    assert resolve(given, {}) == RunSettings(data="d", steps=7)
    for name, field in {**RunSettings.model_fields, **Augmentation.model_fields}.items():
        assert name == "augmentation" or f"{field.alias or name} = " in text


@pytest.mark.parametrize(
    ("content", "message"), [(b"steps = ", "is no TOML"), (b"\xff\xfe", "is no TOML"), (None, "can't be read")]
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"--config .*c\.toml {message}"):
        read_file(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("images", "batch", "steps"), [(5, 2, 3000), (40, 8, 3000), (800, 16, 5000), (9000, 16, 15000)]
)
def test_defaults_follow_the_size_of_the_data_set(images: int, batch: int, steps: int) -> None:
    got = defaults(images, "busi", None)
    assert (got["batch"], got["steps"]) == (batch, steps)
    assert got["augmentation"] == augmentation_for("busi").model_dump()
    assert resolve(DATA, got).augmentation.tint == 1


def test_a_folder_of_ones_own_is_augmented_as_what_it_starts_from() -> None:
    start = checkpoint.read(SHIPPED / "busi-tiny.safetensors").metadata
    assert defaults(40, "plain", start)["augmentation"] == augmentation_for("busi").model_dump()
    assert defaults(40, "ph2", start)["augmentation"] == augmentation_for("ph2").model_dump()
    assert defaults(40, "plain", None)["augmentation"] == Augmentation().model_dump()


def test_what_differs_from_a_saved_run_is_named() -> None:
    saved = resolve({**DATA, "steps": 5}, {})
    assert contradictions({"steps": 5, "data": "moved", "device": "cpu"}, saved) == []
    assert contradictions({"steps": "5", "augmentation": {"noise": "0.02"}}, saved) == []  # as they are checked
    assert contradictions({"epochs": 2}, saved) == ["epochs is None there, 2.0 here"]
    assert contradictions({"steps": 6, "augmentation": {"noise": 0.5}}, saved) == [
        "steps is 5 there, 6 here",
        "augmentation.noise is 0.02 there, 0.5 here",
    ]
