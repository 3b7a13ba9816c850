"""--resume: what of an earlier run is kept, what is redone, whatever became of its records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from runner import ALL, Runner
from stand_in import green_disc, save_picture

from ascseg_cli.data.discover import Found, discover
from ascseg_cli.inference import run_record, work
from ascseg_cli.inference.journal import line_of
from ascseg_cli.inference.outputs import OutputFolder
from ascseg_cli.inference.postprocess import Cleaning
from ascseg_cli.inference.settings import KINDS, Settings


def test_an_interrupted_run_is_resumed_to_the_same_bytes(
    runner: Runner, engine, found: Callable[[int], Found]
) -> None:
    images = found(30)
    summary = runner(images, stop_after=5)
    assert summary.interrupted
    assert summary.counts["skipped"] >= 10
    assert [row["status"] for row in runner.rows()][-1] == "skipped"
    assert runner.record()["state"] == "interrupted"
    done = {path: (runner.root / path).stat().st_mtime_ns for path in runner.pictures()}
    again = runner(images, mode="resume")
    assert again.resumed == len(done) / len(KINDS)
    assert not again.redone
    assert all((runner.root / path).stat().st_mtime_ns == when for path, when in done.items())
    whole = Runner(engine, runner.root.parent / "whole")
    whole(images)
    assert runner.pictures() == whole.pictures()
    assert runner.rows() == whole.rows()
    assert len(runner.record()["earlier_runs"]) == 1


def test_a_run_that_is_asked_to_stop_when_all_is_done_is_finished(
    runner: Runner, found: Callable[[int], Found]
) -> None:
    summary = runner(found(3), stop_after=3)
    assert (summary.interrupted, summary.state) == (False, "finished")
    assert runner.record()["state"] == "finished"


def test_resume_in_a_new_folder_is_a_new_run(runner: Runner, found: Callable[[int], Found]) -> None:
    assert runner(found(3), mode="resume").counts == {"ok": 2, "empty": 1}


def test_resume_redoes_exactly_what_is_not_there_whole(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(8)
    runner(images)
    before = runner.pictures()
    (runner.root / "masks/000.png").unlink()
    overlay = runner.root / "overlays/002.png"
    overlay.write_bytes(overlay.read_bytes()[:-20])
    (runner.root / "masks/003.png").write_bytes((runner.root / "overlays/003.png").read_bytes()[:100])
    polygons = runner.root / "polygons/004.geojson"
    polygons.write_bytes(polygons.read_bytes()[:-5])
    Image.new("L", (3, 3)).save(runner.root / "masks/005.png")
    (runner.root / "probabilities/006.png").write_bytes(b"")
    summary = runner(images, mode="resume")
    assert dict(summary.redone) == {"an output is missing or damaged": 6}
    assert summary.resumed == 2
    assert runner.pictures() == before


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (replace(ALL, threshold=0.25), "threshold 0.5 → 0.25"),
        (replace(ALL, tta=True), "tta False → True"),
        (replace(ALL, cleaning=Cleaning(min_area=9)), "min-area 0 → 9"),
    ],
)
def test_other_settings_are_said_and_redone(
    runner: Runner, engine, found: Callable[[int], Found], settings: Settings, word: str
) -> None:
    images = found(3)
    runner(images)
    summary = runner(images, mode="resume", settings=settings)
    assert word in " ".join(runner.warnings)
    assert summary.resumed == 0
    fresh = Runner(engine, runner.root.parent / "fresh")
    fresh(images, settings=settings)
    assert runner.pictures() == fresh.pictures()
    assert runner(images, mode="resume", settings=settings).resumed == 3


def test_other_weights_are_redone(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(2)
    runner(images)
    runner.engine.weights_sha256 = "1" * 64
    assert runner(images, mode="resume").resumed == 0
    assert "weights green 00000000 → green 11111111" in runner.warnings[0]


def test_a_changed_input_is_redone_and_one_that_broke_leaves_nothing_stale(
    runner: Runner, found: Callable[[int], Found]
) -> None:
    images = found(4)
    runner(images)
    images.items[2].path.write_bytes(images.items[3].path.read_bytes())
    images.items[0].path.write_bytes(b"")
    summary = runner(images, mode="resume")
    assert dict(summary.redone) == {"the image has changed": 2}
    assert [row["status"] for row in runner.rows()] == ["failed", "empty", "ok", "ok"]
    pictures = runner.pictures()
    assert pictures["masks/002.png"] == pictures["masks/003.png"]
    assert not any("000" in name for name in pictures)


def test_more_kinds_than_before_are_made_and_fewer_are_kept(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(2)
    runner(images, settings=replace(ALL, save=("masks",)))
    assert runner(images, mode="resume", settings=ALL).resumed == 0
    assert len(runner.pictures()) == 8
    assert runner(images, mode="resume", settings=replace(ALL, save=("masks",))).resumed == 2


def test_an_output_of_other_settings_never_stands_beside_a_row(
    runner: Runner, engine, found: Callable[[int], Found]
) -> None:
    images, strict = found(2), replace(ALL, threshold=0.9)
    runner(images)
    runner(images, mode="resume", settings=replace(strict, save=("masks",)))
    assert {name.partition("/")[0] for name in runner.pictures()} == {"masks"}
    assert runner(images, mode="resume", settings=strict).resumed == 0
    fresh = Runner(engine, runner.root.parent / "fresh")
    fresh(images, settings=strict)
    assert runner.pictures() == fresh.pictures()


def test_an_output_of_other_settings_that_cannot_be_removed_is_made_again(
    runner: Runner, engine, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, strict = found(2), replace(ALL, threshold=0.9)
    runner(images)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "discard", lambda *_: None)
        runner(images, mode="resume", settings=replace(strict, save=("masks",)))
    assert len(runner.pictures()) == 8
    assert dict(runner(images, mode="resume", settings=strict).redone) == {"an output is missing or damaged": 2}
    fresh = Runner(engine, runner.root.parent / "fresh")
    fresh(images, settings=strict)
    assert runner.pictures() == fresh.pictures()


def test_a_mask_is_never_taken_for_that_of_an_image_which_had_its_name(runner: Runner, tmp_path: Path) -> None:
    first, second = tmp_path / "first" / "x.png", tmp_path / "second" / "x.jpg"
    save_picture(first, green_disc(1))
    save_picture(second, green_disc(2))
    runner(discover([first.parent], output=runner.root))
    mask = runner.pictures()["masks/x.png"]
    runner(discover([second.parent], output=runner.root), mode="resume")
    assert runner.warnings == [
        "1 image of the earlier run aren't among the inputs now; "
        "outputs are overwritten by those of others (first: x.png)"
    ]
    assert runner.pictures()["masks/x.png"] != mask
    runner(discover([first.parent], output=runner.root), mode="resume")
    assert runner.pictures()["masks/x.png"] == mask


def test_an_older_output_of_another_name_is_not_taken_for_the_newer(runner: Runner, tmp_path: Path) -> None:
    photos, strict = tmp_path / "photos", replace(ALL, threshold=0.9)
    save_picture(photos / "x.png", green_disc(1))
    save_picture(photos / "x.jpg", green_disc(2))
    both, one = discover([photos], output=runner.root), discover([photos / "x.png"], output=runner.root)
    runner(both)
    runner(one, mode="resume", settings=strict)  # its mask is masks/x.png now, no longer masks/x.png.png
    summary = runner(both, mode="resume", settings=strict)
    assert summary.redone["outputs have another name now, the old ones stay"] == 1
    fresh = Runner(runner.engine, tmp_path / "fresh")
    fresh(both, settings=strict)
    assert fresh.pictures().items() < runner.pictures().items()


def test_a_kill_while_an_image_is_redone_leaves_it_undone(
    runner: Runner, found: Callable[[int], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = found(1)
    runner(images)
    before = runner.pictures()

    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "geojson", killed)
    with pytest.raises(KeyboardInterrupt):
        runner(images, mode="resume", settings=replace(ALL, threshold=0.9))
    monkeypatch.undo()
    assert runner(images, mode="resume").resumed == 0
    assert runner.pictures() == before


def test_a_torn_journal_line_costs_one_image(runner: Runner, found: Callable[[int], Found]) -> None:
    images = found(3)
    runner(images)
    journal = runner.root / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    assert runner(images, mode="resume").resumed == 2
    assert runner(images, mode="resume").resumed == 3


@pytest.mark.parametrize(
    "rubbish",
    [
        b"{}\n", b"[1]\n", b"nonsense\n", b"\xff\xfe\n", b"\n", b'{"image": "000.png"}\n', b"[" * 100_000 + b"\n",
        line_of({"image": 3}), line_of({"image": "000.png"}), line_of({"image": "x"})[1:],
    ],
)  # fmt: skip
def test_rubbish_in_the_journal_is_survived(runner: Runner, found: Callable[[int], Found], rubbish: bytes) -> None:
    images = found(2)
    runner(images)
    with open(runner.root / "journal.jsonl", "ab") as file:
        file.write(rubbish)
    assert runner(images, mode="resume").resumed >= 1


@pytest.mark.parametrize("key", ["settings", "weights", "earlier_runs", "counts"])
@pytest.mark.parametrize("value", ["[]", "1e999", "null", '{"a": NaN}', "[" * 5000])
def test_rubbish_in_run_json_is_survived(tmp_path: Path, key: str, value: str) -> None:
    base = '"format": 1, "settings": {}, "weights": {}, "earlier_runs": []'
    (tmp_path / "run.json").write_text(f'{{{base}, "{key}": {value}}}')
    earlier = run_record.read(OutputFolder(tmp_path))
    assert earlier is None or run_record.json_bytes(earlier)
