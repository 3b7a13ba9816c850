"""What all tests share: where the golden file and the development data lie, and a store of objects."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).resolve().parent / "golden" / "reference_c8.safetensors"
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Weights, input and every intermediate result of the original computation."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data: real images with masks, one folder a set; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the development data isn't at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """Processes started inside hear SIGINT and SIGHUP, also in the background of a shell or under nohup."""
    heard = {signal.SIGINT: signal.default_int_handler}
    if sys.platform != "win32":
        heard[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def drawn_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid weights file with random numbers: a small network that sees 32×48 px."""
    import torch

    from ascseg_cli.network import ASCSeg, checkpoint
    from ascseg_cli.network.metadata import Metadata, Preprocessing

    torch.manual_seed(0)
    channels = (4, 8, 12, 16)
    state = {
        n: t.numpy() for n, t in ASCSeg(channels).state_dict().items() if not n.endswith("num_batches_tracked")
    }
    path = tmp_path_factory.mktemp("weights") / "drawn.safetensors"
    preprocessing = Preprocessing(rule="squeeze_antialias", size=(32, 48), mean=(0.5,) * 3, std=(0.25,) * 3)
    checkpoint.write(
        path, state, Metadata(name="drawn", variant="custom", channels=channels, preprocessing=preprocessing)
    )
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3 server on loopback, which the environment names as every AWS tool reads it; gives its file system."""
    pytest.importorskip("s3fs", reason="the extra s3 isn't installed")
    server = pytest.importorskip("moto.server", reason="moto isn't installed").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a-key-of-tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        yield s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    server.stop()


@pytest.fixture
def bucket(s3: Any) -> str:
    """The name of a new bucket."""
    name = f"bucket-{secrets.token_hex(4)}"
    s3.mkdir(name)
    return name
