"""`ascseg evaluate --report`: what the page tells is what the other outputs tell."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_reports import column, data_of, disc, draw_masks, save
from PIL import Image

from ascseg_cli import exit_codes
from ascseg_cli.cli import run
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import encode, fingerprint
from ascseg_cli.evaluation.metrics import METRICS
from ascseg_cli.network import checkpoint
from ascseg_cli.reporting.words import METRIC


def text_of(report: Path) -> str:
    """The words of the page, without what its script reads."""
    page = report.read_text(encoding="utf-8").partition("<script")[0].partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def without_header(report: Path) -> str:
    return re.sub(r"<header>.*?</header>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_page_s_figures_are_those_of_json(masks, tmp_path, capsys) -> None:
    report = tmp_path / "report.html"
    assert run([*masks.arguments, "-q", "--json", "--report", str(report)]) == 0
    found = json.loads(capsys.readouterr().out)
    data = data_of(report)
    by_name = {image["name"]: image for image in found["images"]}
    assert len(data["rows"]) == len(by_name) == 40
    for name, dice, hd95, case in zip(*(column(data, key) for key in ("name", "dice", "hd95", "case"))):
        image = by_name[name.replace("\\u202e", "\u202e")]
        assert dice == pytest.approx(image["dice"], rel=1e-4)
        assert hd95 == (image["hd95"] if image["hd95"] is None else pytest.approx(image["hd95"], rel=1e-4))
        assert case == image["case"]
    assert column(data, "dice") == sorted(column(data, "dice"))
    text = text_of(report)
    for key, figure in found["summary"].items():
        assert f"{figure['mean']:.4f}" in text or f"{figure['mean']:.2f}" in text, key
    assert "1 missed" in text
    assert f"{found['protocols']['pooled']['iou']:.4f}" in text


def test_cases_are_the_worst_the_middle_and_the_best(masks, tmp_path) -> None:
    report = tmp_path / "report.html"
    assert run([*masks.arguments, "-q", "--report", str(report)]) == 0
    page = report.read_text(encoding="utf-8")
    shown = re.findall(r'<figure class="case">.*?<span>Dice ([\d.]+)', page)
    dice = sorted(column(data_of(report), "dice"))
    assert shown[:8] == [f"{value:.3f}" for value in dice[:8]]
    assert shown[8:12] == [f"{value:.3f}" for value in dice[18:22]]
    assert shown[12:] == [f"{value:.3f}" for value in sorted(dice[:-1], reverse=True)[:4]]  # not the empty pair
    assert len(re.findall(r'<g class="truth">', page.partition('id="images"')[0])) > 12


def test_other_outputs_are_the_same_with_and_without(masks, tmp_path, capsys) -> None:
    outputs = []
    for more in ([], ["--report", str(tmp_path / "report.html")]):
        assert run([*masks.arguments, "-q", "--json", "--csv", str(tmp_path / "rows.csv"), *more]) == 0
        outputs.append((capsys.readouterr().out, (tmp_path / "rows.csv").read_bytes()))
    assert outputs[0] == outputs[1]


def test_any_number_of_threads_gives_the_same_page(masks, tmp_path) -> None:
    pages = []
    for threads in ("1", "5"):
        report = tmp_path / f"{threads}.html"
        assert run([*masks.arguments, "-q", "--threads", threads, "--report", str(report)]) == 0
        pages.append(without_header(report).replace(f"--threads {threads}", "").replace(str(report), ""))
    assert pages[0] == pages[1]


def test_photographs_lie_below_the_outlines(tmp_path, capsys) -> None:
    """--images: found by name; a damaged one and one of another shape give way to the masks, and are told."""
    masks = draw_masks(tmp_path, [f"x{i}" for i in range(5)])
    for i, name in enumerate(masks.names):
        size = (60 + i, 90) if i != 3 else (90, 60)
        save(tmp_path / f"photos/{name}.png", np.full((*size, 3), (200, 40, 10 * i), np.uint8))
    (tmp_path / "photos/x4.png").write_bytes(b"no image")
    report = tmp_path / "report.html"
    photos = ["--images", str(tmp_path / "photos")]
    assert run([*masks.arguments, *photos, "--report", str(report)]) == 0
    assert "photographs damaged or of another shape: 2" in capsys.readouterr().err
    data = data_of(report)
    for name, picture in zip(column(data, "name"), (row[-1] for row in data["rows"])):
        shown = Image.open(io.BytesIO(base64.b64decode(picture[0].partition(",")[2])))
        if name in ("x3", "x4"):
            assert len(set(shown.convert("L").tobytes())) <= 4
        else:
            wanted = (200, 40, 10 * int(name[1]))
            assert np.abs(np.asarray(shown, int).reshape(-1, 3).mean(axis=0) - wanted).max() < 6


def test_what_is_missing_is_on_the_page(tmp_path, capsys) -> None:
    masks = draw_masks(tmp_path, ["a", "b", "c"])
    (masks.pred / "b.png").write_bytes(b"no image")
    (masks.truth / "c.png").unlink()
    report = tmp_path / "report.html"
    assert run([*masks.arguments, "-q", "--allow-unpaired", "--report", str(report)]) == exit_codes.SOME_FAILED
    text = text_of(report)
    assert "Failed, and in no figure: 1 image b:" in text
    assert "Without a partner, and in no figure: 1 file c.png (prediction)" in text
    assert column(data_of(report), "name") == ["a"]


def test_a_comparison_and_each_image_s_change(masks, tmp_path, capsys) -> None:
    report = tmp_path / "report.html"
    assert run([*masks.arguments, "-q", "--json", "--compare", str(masks.truth), "--report", str(report)]) == 0
    found = json.loads(capsys.readouterr().out)["comparison"]
    data = data_of(report)
    assert np.mean(column(data, "change")) == pytest.approx(found["metrics"]["dice"]["mean"], abs=1e-4)
    assert f"−{abs(found['metrics']['dice']['mean']):.4f}" in text_of(report)


def test_a_gate_that_fails_leaves_the_page(masks, tmp_path) -> None:
    report = tmp_path / "report.html"
    assert run([*masks.arguments, "-q", "--require", "dice>=0.99", "--report", str(report)]) == 4
    assert len(data_of(report)["rows"]) == 40


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--report", "no/such/folder/r.html"], "--report no/such/folder/r.html can't be written"),
        (["--images", "photos"], "--images are the photographs in the --report"),
        (["--report", "r.html", "--images", "nowhere"], "nowhere is no folder"),
    ],
)
def test_refusals(masks, more, words, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*masks.arguments, *more]) in (exit_codes.USAGE, exit_codes.NOTHING_DONE)
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_neither_torch_nor_the_report_is_loaded_in_vain(masks, tmp_path) -> None:
    code = (
        "import sys; from ascseg_cli.cli import run; code = run(sys.argv[1:]);"
        "print([m for m in ('torch', 'ascseg_cli.reporting') if m in sys.modules], file=sys.stderr);"
        "sys.exit(code)"
    )
    for more, loaded in (([], "[]"), (["--report", str(tmp_path / "r.html")], "['ascseg_cli.reporting']")):
        command = [sys.executable, "-c", code, *masks.arguments, "-q", *more]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        assert (done.returncode, done.stderr.strip()) == (0, loaded)


def test_weights_give_a_reliability_curve_and_a_warning(drawn_weights, tmp_path, capsys) -> None:
    random = np.random.default_rng(2)
    for i in range(4):
        pixels = random.integers(0, 256, (5, 6, 3), np.uint8)
        picture = np.asarray(Image.fromarray(pixels).resize((70, 50), Image.Resampling.BICUBIC))
        save(tmp_path / f"data/images/p{i}.png", picture)
        save(tmp_path / f"data/masks/p{i}.png", disc((50, 70), (25, 30), 10 + i).astype(np.uint8) * 255)
    read = checkpoint.read(drawn_weights)
    known = encode([fingerprint(read_pixels(tmp_path / "data/images/p2.png"))])
    weights, report = tmp_path / "w.safetensors", tmp_path / "r.html"
    checkpoint.write(weights, read.tensors, read.metadata.model_copy(update={"training_images": known}))
    command = ["evaluate", str(tmp_path / "data"), "--weights", str(weights), "-q", "--threshold", "0.3"]
    assert run([*command, "--report", str(report)]) == 0
    text = text_of(report)
    assert "1 image seen in training 1 exactly, 0 nearly" in text
    assert "3 images not seen" in text
    assert "Reliability:" in text
    assert "--threshold 0.3" in text
    assert "torch" in text
    data = data_of(report)
    assert dict(zip(column(data, "name"), column(data, "seen")))["images/p2"] == "exact"
    shown = base64.b64decode(data["rows"][0][-1][0].partition(",")[2])
    assert Image.open(io.BytesIO(shown)).size == (70, 50)


def test_every_metric_is_explained() -> None:
    assert set(METRIC) == set(METRICS)
