"""`ascseg predict s3://…`: an object store gives and takes what a folder of this machine would, byte for byte."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ascseg_cli import cli
from ascseg_cli.data import remote
from ascseg_cli.inference import remote_journal

Predict = Callable[..., int]
KINDS = "masks,overlays,probabilities,polygons"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Good pictures in three folders, whose order by bytes isn't that by parts; a damaged one; what isn't read."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b b.jpg", "환자/사진 #1.png", "환자-2/a.png", "환자/a?.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + 10 * number, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.png").write_bytes(b"x")
    (folder / "old_ascseg").mkdir()
    (folder / "old_ascseg/run.json").write_bytes(b"{}")
    (folder / "old_ascseg/x.png").write_bytes(b"x")
    return folder


@pytest.fixture
def predict(drawn_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        base = ["predict", "--weights", str(drawn_weights), "--backend", "cpu", "--threads", "2"]
        return cli.run([*base, *map(str, arguments)])

    return run


@pytest.fixture
def uploaded(s3: Any, bucket: str, photos: Path) -> str:
    for path in photos.rglob("*"):
        if path.is_file():
            s3.pipe_file(f"{bucket}/photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    return f"s3://{bucket}/photos"


def in_folder(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def in_store(s3: Any, url: str) -> dict[str, bytes]:
    root = url.removeprefix("s3://")
    return {name.removeprefix(f"{root}/"): s3.cat_file(name) for name in s3.find(root)}


def comparable(files: dict[str, bytes]) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """All but the records, and the rows without `seconds`."""
    table = csv.DictReader(io.StringIO(files["results.csv"].decode(), newline=""))
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in table]
    kept = {name: content for name, content in files.items() if name.partition("/")[0] in KINDS.split(",")}
    return kept, rows


def test_the_store_gives_and_takes_what_a_folder_would(
    predict: Predict, photos: Path, uploaded: str, s3: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert predict("photos", "--save", KINDS) == 1
    local = capfd.readouterr().err
    want = comparable(in_folder(tmp_path / "photos_ascseg"))
    assert len(want[0]) == 5 * 4
    assert predict(uploaded, "--save", KINDS) == 1
    there = in_store(s3, f"{uploaded}_ascseg")
    assert comparable(there) == want
    assert "journal/lease" not in there
    assert json.loads(there["run.json"])["state"] == "finished"
    stderr = capfd.readouterr().err
    for line in ("left out, not of a kind that is read: 1 (.txt 1)", "left out, hidden: 1", "failed: cut.png: "):
        assert line in local
        assert line in stderr
    assert f"an earlier run: {uploaded}/old_ascseg" in stderr
    assert "a-secret-of-tests" not in stderr + str(there.values())
    assert predict("photos", "--output", f"{uploaded}-2", "--save", KINDS) == 1
    assert comparable(in_store(s3, f"{uploaded}-2")) == want
    assert predict(uploaded, "--output", "down", "--save", KINDS) == 1
    assert comparable(in_folder(tmp_path / "down")) == want


def test_a_run_there_is_resumed_and_overwritten(
    predict: Predict, uploaded: str, s3: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    output = f"{uploaded}_ascseg"
    assert predict(uploaded) == 1
    whole = comparable(in_store(s3, output))
    assert predict(uploaded) == 2
    assert "--resume goes on with it" in capfd.readouterr().err
    s3.rm_file(f"{output}/masks/a.png".removeprefix("s3://"))
    s3.pipe_file(f"{uploaded}/b b.jpg".removeprefix("s3://"), s3.cat_file(f"{uploaded}/a.png"))
    assert predict(uploaded, "--resume") == 1
    stderr = capfd.readouterr().err
    assert "1 image done again: an output is missing or damaged" in stderr
    assert "1 image done again: the image has changed" in stderr
    assert "(3 from an earlier run)" in stderr
    again = in_store(s3, output)
    assert again["masks/b b.png"] == whole[0]["masks/a.png"]
    assert again["masks/환자/a?.png"] == whole[0]["masks/환자/a?.png"]
    s3.pipe_file(f"{output}/mine.txt".removeprefix("s3://"), b"mine")
    assert predict(f"{uploaded}/a.png", "--output", output, "--overwrite") == 0
    left = {name for name in in_store(s3, output) if not name.startswith("journal/")}
    assert left == {"masks/a.png", "overlays/a.png", "results.csv", "run.json", "mine.txt"}


def test_a_list_of_urls_and_a_dry_run(
    predict: Predict, uploaded: str, s3: Any, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [f"{uploaded}/b b.jpg", f"{uploaded}/환자/a?.png", f"{uploaded}/nowhere.png"]
    Path("list.txt").write_text("\0".join(names), encoding="utf-8")
    output = f"s3://{bucket}/out"
    assert predict("--files-from", "list.txt", "-0", "-o", output, "--dry-run") == 0
    assert f"{uploaded}/b b.jpg -> {output}/masks/b b.png, " in capfd.readouterr().out
    assert s3.find(f"{bucket}/out") == []
    assert predict("--files-from", "list.txt", "-0", "-o", output, "--json") == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == ["b b.jpg", "a?.png", "nowhere.png"]
    assert lines[2]["reason"] == "no such object"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["s3://BUCKET/none"], 3, "s3://BUCKET/none: no image in this folder"),
        (["s3://no-such-bucket/a/"], 3, "there is no bucket 'no-such-bucket'"),
        (["http://127.0.0.1/a.png"], 2, "http:// isn't read"),
        (["s3:///a.png"], 2, "names no bucket"),
        (["s3://BUCKET"], 2, "--output"),
        (["s3://BUCKET/out/a.png", "-o", "s3://BUCKET/out"], 2, "lies in the output folder"),
        (["photos", "-o", "gs://x/y"], 2, "gs:// isn't read"),
        (["photos", "-o", "s3://no-such-bucket/x"], 3, "there is no bucket"),
    ],
)
def test_wrong_places_are_one_line(
    predict: Predict, uploaded: str, bucket: str, capfd: pytest.CaptureFixture[str],
    arguments: list[str], code: int, words: str,
) -> None:  # fmt: skip
    assert predict(*(argument.replace("BUCKET", bucket) for argument in arguments)) == code
    stderr = capfd.readouterr().err
    assert words.replace("BUCKET", bucket) in stderr
    assert "Traceback" not in stderr


def test_without_credentials_or_store_it_says_what_to_set(
    predict: Predict, s3: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote._store.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert predict("s3://anything/a/") == 3
    assert "error: s3://anything can't be reached: " in capfd.readouterr().err
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    remote._store.cache_clear()
    assert predict("s3://anything/a/") == 3
    stderr = capfd.readouterr().err
    assert "can't be used: Unable to locate credentials" in stderr
    assert "hint: set AWS_ACCESS_KEY_ID" in stderr
    remote._store.cache_clear()


def test_two_runs_there_don_t_mix(s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_journal, "_EVERY", 0.1)
    monkeypatch.setattr(remote_journal, "_PATIENCE", 5.0)
    place = remote.RemotePath(bucket, "out")
    said: list[str] = []
    alive = remote_journal.RemoteJournal(place, said.append)
    alive.open()
    alive.add({"image": "a", "fingerprint": "1"})
    second = remote_journal.RemoteJournal(place, said.append)
    with pytest.raises(remote.StoreError, match="another run is writing"):
        second.open()
    assert "watching" in said[0]
    alive.close()
    third = remote_journal.RemoteJournal(place, said.append)
    third.open()
    assert len(said) == 1
    assert third.get("a") == {"image": "a", "fingerprint": "1"}
    # Killed: it neither renews nor gives back. Then it comes to life again, and must notice.
    third._closing.set()
    fourth = remote_journal.RemoteJournal(place, said.append)
    fourth.open()
    assert len(said) == 2
    fourth.add({"image": "a"})
    with pytest.raises(remote.StoreError, match="another run is writing"):
        third.add({"image": "a"})
    third.close()
    fourth.close()
    assert sorted(s3.find(f"{bucket}/out")) == [f"{bucket}/out/journal/00000000000{n}.jsonl" for n in (1, 2)]
