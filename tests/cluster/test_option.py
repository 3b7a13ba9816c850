"""`--ray [ADDRESS]`: what is its value and what an input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ascseg_cli import cli
from ascseg_cli.cli import prediction


@pytest.mark.parametrize(
    ("words", "address", "inputs"),
    [
        (["a", "--ray"], "auto", ["a"]),
        (["--ray", "a"], "auto", ["a"]),
        (["--ray", "s3://bucket/a:1"], "auto", ["s3://bucket/a:1"]),
        (["--ray", "head.example:6379", "a"], "head.example:6379", ["a"]),
        (["--ray", "ray://[::1]:10001", "a"], "ray://[::1]:10001", ["a"]),
        (["--ray=head:1", "a"], "head:1", ["a"]),
        (["--ray", "local", "a"], "local", ["a"]),
        (["--ray", "--quiet", "a"], "auto", ["a"]),
        (["a"], None, ["a"]),
    ],
)
def test_the_address_may_be_left_out(
    words: list[str], address: str | None, inputs: list[str], drawn_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Any] = []
    monkeypatch.setattr(prediction, "carry_out", lambda order: orders.append(order) or 0)
    assert cli.run(["predict", *words, "--weights", str(drawn_weights)]) == 0
    assert (orders[0].ray, orders[0].inputs) == (address, inputs)
