"""The web page, in a real browser on loopback: a dropped picture gives the network's mask, and nothing leaves."""

from __future__ import annotations

import base64
import functools
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import real_browser as browser

STATUS = 'document.getElementById("status").textContent'
DROP = """(async () => {
  const content = await (await fetch("%s")).blob();
  const dropped = new DataTransfer();
  dropped.items.add(new File([content], "%s"));
  const how = { dataTransfer: dropped, bubbles: true, cancelable: true };
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", how));
})()"""
SAVED = """(async () => {
  const image = new Image();
  image.src = document.getElementById("save").href;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  return [image.height, image.width, btoa(String.fromCharCode(...data.filter((_, i) => i % 4 === 0)))];
})()"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(installed: Callable[[str], Path], model: Path, picture: Path) -> Iterator[tuple[str, Path]]:
    """The page's address, and its folder with a model and a picture beside it."""
    if browser.find() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is installed")
    folder = installed("onnx_web")
    shutil.copy(model, folder / "model.onnx")
    shutil.copy(picture, folder / "polyp.png")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()


def status(page: browser.Browser, *endings: str) -> str:
    """What the page says, once one of these is in it."""
    for _ in range(600):
        words = str(page.run(STATUS))
        if any(ending in words for ending in endings):
            return words
        time.sleep(0.1)
    pytest.fail(f"the page still says {words!r}; {page.messages}")


def test_a_dropped_picture_gives_the_networks_mask(
    served: tuple[str, Path], check: Callable[[np.ndarray], None]
) -> None:
    address, folder = served
    program = browser.find()
    assert program is not None
    with browser.Browser(program) as page:
        page.open(address)
        assert status(page, "ready", "can't") == "model.onnx is ready."
        page.run(DROP % ("polyp.png", "polyp.png"))
        assert status(page, "Done", "can't").startswith("Done in ")
        height, width, values = page.run(SAVED)
        check(np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width))
        assert page.run('document.getElementById("result").hidden') is False
        caption = page.run('document.getElementById("caption").textContent')
        assert caption.startswith("polyp.png, 300 × 252 px: ")
        assert page.messages == []
        assert all(url.startswith((address, f"blob:{address}")) for url in page.requests)

        (folder / "notes.png").write_text("no picture", encoding="utf-8")
        page.run(DROP % ("notes.png", "notes.png"))
        assert status(page, "notes.png can't be segmented")
        (folder / "cut.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
        page.run(DROP % ("cut.onnx", "cut.onnx"))
        assert status(page, "cut.onnx can't be run")
