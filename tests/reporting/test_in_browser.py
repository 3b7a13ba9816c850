"""The report in a real browser: it loads, sorts, filters, shows, prints, and lets nothing in or out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from drawn_reports import HOSTILE, Masks, column, data_of

from ascseg_cli.cli import run
from ascseg_cli.reporting import page
from ascseg_cli.reporting.page import Column, Images

ROWS = "[...document.querySelectorAll('.rows tbody tr')]"


@pytest.fixture(scope="module")
def report(masks: Masks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert run([*masks.arguments, "-q", "--report", str(path), "--threads", "2"]) == 0
    return path


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    browser.show_at(1200)
    browser.open(report)
    return browser


def column_shown(browser: Any, key: str) -> list[str]:
    """The texts of a column of the page's table, found by its head."""
    place = f"[...document.querySelectorAll('.rows thead th')].findIndex((th) => th.dataset.key === '{key}')"
    return browser.run(f"{ROWS}.map((row) => row.cells[{place}].textContent)")


def press_head(browser: Any, key: str) -> None:
    browser.run(f"document.querySelector('th[data-key={key}] button').focus()")
    browser.press("Enter")


def test_it_loads_without_a_word_and_asks_for_nothing(opened, report) -> None:
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.resolve().as_uri()]
    states = opened.run("[...document.images].map((i) => i.complete && i.naturalWidth > 0)")
    assert len(states) >= 25 + 16
    assert all(states)


def test_sorting_by_keyboard(opened, report) -> None:
    opened.run("document.getElementById('size').value = '50'; size.dispatchEvent(new Event('change'))")
    assert column_shown(opened, "dice") == [f"{value:.3f}" for value in sorted(column(data_of(report), "dice"))]
    press_head(opened, "hd95")
    far = sorted((x for x in column(data_of(report), "hd95") if x is not None), reverse=True)
    undefined = ["–"] * (len(column(data_of(report), "hd95")) - len(far))
    assert len(undefined) == 2
    assert column_shown(opened, "hd95") == [f"{value:.2f}" for value in far] + undefined
    assert opened.run("document.querySelector('th[data-key=hd95]').ariaSort") == "descending"
    press_head(opened, "hd95")
    assert column_shown(opened, "hd95") == [f"{value:.2f}" for value in reversed(far)] + undefined
    assert opened.run("document.querySelectorAll('th[aria-sort]').length") == 1
    assert opened.run("document.querySelector('th[aria-sort]').ariaSort") == "ascending"


def test_filters(opened, report) -> None:
    opened.run("search.value = 'SET 1/P'; search.dispatchEvent(new Event('input'))")
    opened.run("new Promise((done) => setTimeout(done, 300))")
    assert len(column_shown(opened, "name")) == 11
    assert all(name.startswith("set 1/p") for name in column_shown(opened, "name"))
    names, dice = column(data_of(report), "name"), column(data_of(report), "dice")
    some = [value for value, name in zip(dice, names) if "set 1/" in name]
    assert opened.run("told.textContent") == f"11 of 40 images; their mean Dice is {sum(some) / 11:.3f}"
    opened.run("document.getElementById('reset').click()")
    choose = "((only) => { only.value = 'missed'; only.dispatchEvent(new Event('change')); })"
    opened.run(f"{choose}(document.getElementById('only-case'))")
    assert column_shown(opened, "name") == ["missed"]
    opened.run("document.getElementById('reset').click()")
    opened.run("least.value = '0.8'; most.value = '0.9'; most.dispatchEvent(new Event('input'))")
    opened.run("new Promise((done) => setTimeout(done, 300))")
    assert len(column_shown(opened, "dice")) == sum(0.8 <= value <= 0.9 for value in dice) > 3


def test_an_image_large_by_keyboard(opened) -> None:
    opened.run("document.querySelectorAll('.rows .name')[1].focus()")
    opened.press("Enter")
    assert opened.run("large.open")
    names = column_shown(opened, "name")
    heading = "document.getElementById('large-name').textContent"
    assert opened.run(heading) == names[1]
    opened.press("ArrowRight")
    assert opened.run(heading) == names[2]
    line = "getComputedStyle(document.querySelector('#large .pred') || document.querySelector('.pred')).display"
    assert opened.run(line) != "none"
    opened.press("p")
    assert opened.run("document.body.classList.contains('without-pred')")
    opened.press("Escape")
    assert not opened.run("large.open")
    opened.run("new Promise((done) => setTimeout(done, 100))")
    assert opened.run("document.activeElement.textContent") == names[2]


def test_hostile_names_stay_names(opened) -> None:
    text = opened.run("document.body.textContent")
    for name in HOSTILE:
        assert name.replace("/", "\u2215").replace("\u202e", "\\u202e") in text
    assert "\u202e" not in text
    opened.run("[...document.querySelectorAll('.rows .name')].slice(0, 12).forEach((name) => name.click())")
    assert opened.run("typeof window.hacked") == "undefined"
    assert opened.run("document.querySelectorAll('[onerror], script').length") == 2  # the data, and ours
    assert opened.messages == []


def test_the_policy_holds(opened) -> None:
    """Had a name become mark-up after all, it would do nothing: neither run, nor load, nor send."""
    opened.run(
        "var s = document.createElement('script'); s.textContent = 'window.hacked = 9'; document.body.append(s)"
    )
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=x.png onerror=\"window.hacked=8\">')")
    sent = opened.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
    opened.run("new Promise((done) => setTimeout(done, 100))")
    assert sent == "refused"
    assert opened.run("typeof window.hacked") == "undefined"
    assert sum("Content Security Policy" in message for message in opened.messages) >= 3


def test_lines_differ_by_more_than_colour(opened) -> None:
    dashes = [
        opened.run(f"getComputedStyle(document.querySelector('.case .{kind} path:not(.under)')).strokeDasharray")
        for kind in ("truth", "pred")
    ]
    assert dashes[0] == "none"
    assert dashes[1] != "none"
    assert {"truth: solid", "prediction: dashed"} <= set(
        opened.run("[...document.querySelectorAll('.legend span')].map((span) => span.textContent)")
    )


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_width_makes_the_page_scroll_sideways(opened, width) -> None:
    opened.show_at(width)
    assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_dark_and_printed(opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert min(opened.run(ground)) > 200
    opened.show_at(1200, dark=True)
    assert max(opened.run(ground)) < 60
    printed = opened.printed()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", printed)) <= 12
    opened.show_at(1200)


def test_ten_thousand_rows(browser, tmp_path) -> None:
    """Only a page of them is in the document, and sorting them all takes no more than a moment."""
    columns = [Column("name", "name", kind="text"), Column("dice", "Dice", rising=True)]
    rows = (([f"image {i}", (i * 7919 % 10007) / 10007], None) for i in range(10_000))
    path = tmp_path / "many.html"
    page.write(path, "many", [page.images_section("All", "")], Images(columns, rows, ("name", False), "dice"))
    browser.open(path)
    assert browser.run(f"{ROWS}.length") == 25
    press_head(browser, "dice")
    assert column_shown(browser, "dice")[:2] == ["0.000", "0.000"]
    spent = browser.run("(() => { const t = performance.now(); document.querySelector('th[data-key=dice] button')"
                        ".click(); return performance.now() - t; })()")  # fmt: skip
    assert spent < 2000
    assert column_shown(browser, "dice")[0] == "1.000"
    browser.run("[...document.querySelectorAll('nav button')].at(-1).click()")
    assert browser.run("where.textContent") == "rows 9,976 to 10,000 of 10,000"
    assert browser.messages == []
