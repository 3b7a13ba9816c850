"""`ascseg predict --report`: a queue for review, the same whether a run was interrupted or not."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_reports import column, data_of
from PIL import Image

from ascseg_cli import cli, exit_codes
from ascseg_cli.cli import prediction

Predict = Callable[..., int]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven smooth pictures in two folders, and a damaged one whose name would be mark-up."""
    random = np.random.default_rng(1)
    for i in range(7):
        path = tmp_path / f"photos/{'sub/' * (i % 2)}p{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((60 + 10 * i, 50), Image.Resampling.BICUBIC).save(path)
    (tmp_path / "photos/<b>cut.png").write_bytes(b"\x89PNG")
    return tmp_path / "photos"


@pytest.fixture
def predict(drawn_weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    monkeypatch.chdir(photos.parent)

    def run(*arguments: object) -> int:
        base = ["predict", "photos", "--weights", str(drawn_weights), "--threads", "1", "-q", "--threshold", "0.4"]
        return cli.run([*base, *map(str, arguments)])

    return run


def without_header(report: Path) -> str:
    return re.sub(r"<header>.*?</header>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_least_confident_first(predict, photos) -> None:
    assert predict("-o", "out", "--report", "out/review.html") == exit_codes.SOME_FAILED
    with open("out/results.csv", encoding="utf-8", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file) if row["status"] != "failed"}
    data = data_of(Path("out/review.html"))
    assert set(column(data, "name")) == set(rows)
    known = [value for value in column(data, "confidence") if value is not None]
    assert len(known) > 3
    assert known == sorted(known)
    for name, confidence, area in zip(*(column(data, key) for key in ("name", "confidence", "area"))):
        told = rows[name]["mean_confidence"]
        assert confidence == (pytest.approx(float(told), rel=1e-4) if told else None)
        assert area == pytest.approx(100 * float(rows[name]["foreground_fraction"]), rel=1e-4)
    assert all(row[-1][0].startswith("data:image/webp") and row[-1][4] is None for row in data["rows"])
    page = Path("out/review.html").read_text(encoding="utf-8")
    assert "Failed: 1 image" in page
    assert "&lt;b&gt;cut.png" in page
    assert "<b>cut" not in page


def test_an_interrupted_run_ends_in_the_same_page(predict, monkeypatch, capsys) -> None:
    assert predict("-o", "whole", "--report", "whole/review.html") == exit_codes.SOME_FAILED
    begin = prediction.Run.__call__

    def interrupted(self):
        self._on_result, tell = (lambda result: (tell(result), self.stop())), self._on_result
        return begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(prediction.Run, "__call__", interrupted)
        assert predict("-o", "parts", "--report", "parts/review.html") == exit_codes.INTERRUPTED
    assert not Path("parts/review.html").exists()
    assert predict("-o", "parts", "--report", "parts/review.html", "--resume") == exit_codes.SOME_FAILED
    whole, parts = (without_header(Path(name) / "review.html") for name in ("whole", "parts"))
    assert whole.replace("whole", "parts") == parts
    assert predict("-o", "parts", "--report", "parts/review.html", "--resume") == exit_codes.SOME_FAILED
    assert without_header(Path("parts/review.html")) == parts


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--save", "overlays", "--report", "r.html"], "--save must name masks too"),
        (["--report", "no/such/r.html"], "--report no/such/r.html can't be written"),
        (["--report", "photos"], "--report photos can't be written"),
    ],
)
def test_refusals_come_before_any_work(predict, more, words, capsys) -> None:
    assert predict("-o", "out", *more) in (exit_codes.USAGE, exit_codes.NOTHING_DONE)
    assert words in capsys.readouterr().err
    assert not Path("out").exists()


def test_stdin_has_no_report(drawn_weights, capsys) -> None:
    assert cli.run(["predict", "-", "--weights", str(drawn_weights), "--report", "r.html"]) == exit_codes.USAGE
    assert "--report is a page of many images" in capsys.readouterr().err
