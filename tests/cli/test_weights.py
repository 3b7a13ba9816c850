"""`ascseg weights` as somebody types it: what stdout carries, what stderr says, the exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli import cli
from ascseg_cli.network import checkpoint
from ascseg_cli.network.metadata import Metadata, Preprocessing, Score
from ascseg_cli.network.shapes import expected_shapes
from ascseg_cli.weights import manifest, store
from ascseg_cli.weights.entry import entry_of, entry_text

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `ascseg weights …`; returns exit code, stdout, stderr."""

    def ascseg(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(["weights", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return ascseg


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", folder
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def known(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A manifest whose kvasir-tiny lies on a server and whose busi-tiny isn't released; gives the served file."""
    url, folder = server
    path = folder / "kvasir-tiny.safetensors"
    metadata = Metadata(
        name="kvasir-tiny",
        dataset="kvasir",
        variant="tiny",
        channels=(8, 16, 24, 32),
        preprocessing=Preprocessing(rule="squeeze_antialias", size=(256, 256)),
        licence="for research",
        citation="Jha",
        split={"rule": "none"},
        scores=(Score(part="validation", metric="pooled_iou", value=0.71, protocol="made up"),),
    )
    tensors = {name: np.ones(shape, np.float32) for name, shape in expected_shapes(metadata.channels).items()}
    checkpoint.write(path, tensors, metadata)
    text = entry_text(entry_of(path, {})).replace("urls = []", f'urls = ["{url}/{path.name}"]')
    announced = (
        'name = "busi-tiny"\ndataset = "busi"\nvariant = "tiny"\ndefault = true\nlicence = "x"\ncitation = "y"\n'
    )
    (tmp_path / "m.toml").write_text(f"format = 1\n{text}\n[[weights]]\n{announced}", encoding="utf-8")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "ASCSEG_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASCSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "SHIPPED", tmp_path / "none")
    monkeypatch.setattr(manifest, "manifest_path", lambda: tmp_path / "m.toml")
    manifest.load_manifest.cache_clear()
    yield path
    manifest.load_manifest.cache_clear()


def test_from_listed_to_fetched_to_verified(run: Run, known: Path) -> None:
    code, out, _ = run("list", "--json")
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert (first["name"], first["state"], first["path"]) == ("kvasir-tiny", "not fetched", None)
    assert (second["name"], second["state"]) == ("busi-tiny", "not released")
    assert run("path", "kvasir")[0] == 3
    code, out, err = run("fetch", "kvasir")
    path = Path(out.rstrip("\n"))
    assert code == 0
    assert path.read_bytes() == known.read_bytes()
    assert err == f"note: kvasir-tiny downloaded, {path.stat().st_size:,} bytes\n"
    assert run("path", "kvasir") == run("path", "kvasir-tiny") == (0, f"{path}\n", "")
    assert run("fetch", "--all") == (0, f"{path}\n", "")
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    assert out.startswith(f"kvasir-tiny\tok\t{path}: whole, as in the manifest; channels 8, 16, 24, 32; sha256 ")
    table = [line.split("\t") for line in run("list")[1].splitlines()]
    assert table[0] == ["name", "variant", "size", "where", "validation", "licence"]
    assert table[1] == ["kvasir-tiny *", "tiny", "1.0 MB", "cached", "pooled IoU 0.710", "for research"]
    assert table[2] == ["busi-tiny *", "tiny", "", "not released", "", "x"]


def test_damage_fails_the_gate_and_is_mended(run: Run, known: Path) -> None:
    path = Path(run("fetch", "kvasir")[1].rstrip())
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    code, out, err = run("verify")
    assert code == 4
    assert out.startswith(f"kvasir-tiny\tFAILED\t{path}: its sha256 is ")
    assert err == "error: 1 of 1 weights are not as they must be: kvasir-tiny\n"
    code, out, err = run("path", "kvasir")
    assert (code, out) == (3, "")
    assert err.endswith("hint: run: ascseg weights fetch kvasir-tiny, which replaces it\n")
    assert run("fetch", "kvasir")[0] == 0
    assert run("verify")[0] == 0


def test_verify_takes_files(run: Run, known: Path, tmp_path: Path) -> None:
    assert run("verify", known)[0] == 0
    alien = tmp_path / "mine.safetensors"
    shutil.copy(known, alien)
    assert "not in the manifest, so its content alone was checked" in run("verify", alien)[1]
    alien.write_bytes(alien.read_bytes()[:-1])
    code, out, _ = run("verify", known, alien)
    assert code == 4
    assert [line.split("\t")[1] for line in out.splitlines()] == ["ok", "FAILED"]
    content = checkpoint.read(known)
    checkpoint.write(known, content.tensors, content.metadata.model_copy(update={"threshold": 0.4}))
    assert "it is named like kvasir-tiny, but its sha256 is" in run("verify", known)[1]
    assert run("verify", tmp_path / "none.safetensors")[0] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("fetch", 2, "name the weights to fetch, or give --all"),
        ("fetch kvasir --all", 2, "name the weights to fetch, or give --all"),
        ("fetch busi", 3, "busi-tiny: not released yet: the manifest names neither a file nor a URL"),
        ("fetch kvasri", 2, "no weights are named kvasri\nhint: did you mean kvasir?"),
        ("fetch kvasir --offline", 3, "kvasir-tiny isn't on this machine, and offline mode forbids the download"),
        ("path busi", 3, "busi-tiny: not released yet"),
        ("path kvasir", 3, "kvasir-tiny isn't on this machine\nhint: run: ascseg weights fetch kvasir-tiny"),
        ("verify", 3, "no weights are on this machine"),
        ("verify kvasri", 2, "no weights are named kvasri"),
        ("import none.pth --output x.safetensors", 3, "none.pth: no such file"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_its_code(
    arguments: str, code: int, words: str, run: Run, known: Path
) -> None:
    got, out, err = run(*arguments.split())
    assert (got, out) == (code, "")
    assert err.startswith(f"error: {words}")
    assert len(err.splitlines()) <= 2


def test_a_mirror_without_the_file_is_one_line(run: Run, known: Path) -> None:
    known.unlink()
    code, out, err = run("fetch", "kvasir")
    assert (code, out) == (3, "")
    lines = err.splitlines()
    assert re.fullmatch(
        r"error: kvasir-tiny: no mirror delivered it: 127\.0\.0\.1:\d+ answers HTTP 404 .*", lines[-2]
    )
    assert list(store.weights_folder().glob("kvasir*")) == []


def test_import_prints_the_path_and_says_what_it_took(run: Run, golden: Path, tmp_path: Path) -> None:
    output = tmp_path / "reference.safetensors"
    code, out, err = run("import", golden, "--output", output)
    assert (code, out) == (0, f"{output}\n")
    assert "note: tiny network of channels 8, 16, 24, 32; sha256 " in err
    code, out, err = run("import", golden, "--output", output)
    assert (code, out) == (3, "")
    assert "exists" in err
    assert run("import", golden, "--output", output, "--overwrite", "--dataset", "busi")[0] == 0
    assert checkpoint.read_metadata(output).dataset == "busi"
    assert run("verify", output)[0] == 0


VERBS = ("list", "fetch", "import", "verify", "path")


@pytest.mark.parametrize("verb", VERBS)
def test_each_help_ends_in_an_example_that_runs(verb: str, run: Run, known: Path, tmp_path: Path) -> None:
    from ascseg_cli.cli import weights

    functions = {
        command.name or command.callback.__name__: command.callback for command in weights.app.registered_commands
    }
    last = functions[verb].__doc__.strip().splitlines()[-1]
    assert last.strip().startswith(f"Example:  ascseg weights {verb}")
    arguments = shlex.split(last.strip().removeprefix("Example:  ascseg weights "))
    if verb != "fetch":
        run("fetch", "kvasir")
    root = Path(__file__).resolve().parents[2]
    changed = [str(root / a) if a.startswith("tests/") else a for a in arguments]
    home = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert run(*changed)[0] == 0
    finally:
        os.chdir(home)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from ascseg_cli import cli; code = cli.run(['weights', 'list']);"
        " assert 'torch' not in sys.modules, 'torch'; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
