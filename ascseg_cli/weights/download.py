"""Brings a named weights file into the store: through mirrors, resumable, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import OpenerDirector

from ascseg_cli.errors import DownloadError, WeightsError
from ascseg_cli.weights import store
from ascseg_cli.weights.manifest import Entry
from ascseg_cli.weights.transfer import PIECE, DiskError, Limits, MirrorError, opener, transfer

Progress = Callable[[int], None]
Say = Callable[[str], None]
PATIENCE = Limits()
OFF = ("", "0", "false", "no", "off")


def is_offline() -> bool:
    """Whether the environment forbids downloads: ASCSEG_OFFLINE set to anything but 0, false, no, off."""
    return os.environ.get("ASCSEG_OFFLINE", "").strip().lower() not in OFF


def fetch(
    entry: Entry,
    *,
    offline: bool = False,
    progress: Progress = lambda _: None,
    say: Say = lambda _: None,
    limits: Limits = PATIENCE,
) -> Path:
    """The verified file of an entry, downloaded into the store unless it is here already.

    progress  is told the bytes that are there so far, of entry.size
    say       is told what the user may wonder about: waiting for another process, the next mirror
    Raises WeightsError where there is nothing to download from, DownloadError where no mirror delivered.
    """
    state, path = store.look_up(entry)
    if path is not None and state != "damaged":
        return path
    if not entry.urls:
        raise store.missing(entry, state, path)
    target = store.cached_path(entry)
    if offline or is_offline():
        raise DownloadError(
            f"{entry.name} isn't on this machine, and offline mode forbids the download",
            f"go online without --offline and ASCSEG_OFFLINE, or put {entry.file} at {target}",
        )
    with _only_one(target.parent, say):
        if not (target.exists() and store.is_whole(target, entry)):
            _deliver(entry, target, progress, say, limits)
    return target


@contextlib.contextmanager
def _only_one(folder: Path, say: Say) -> Iterator[None]:
    """Hold the store's lock, so that two processes never write the same file; a killed holder frees it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another process is downloading weights; waiting for it")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise WeightsError(
            f"the weights folder {folder} can't be written: {getattr(error, 'strerror', None) or error}",
            "set ASCSEG_HOME to a folder that you can write to",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _deliver(entry: Entry, target: Path, progress: Progress, say: Say, limits: Limits) -> None:
    """Try the mirrors in order until the partial file has the manifest's hash; then give it its name."""
    part = target.with_name(f"{target.name}.part")
    client = opener()
    reasons: list[str] = []
    try:
        for url in entry.urls:
            try:
                _from_mirror(client, url, entry, part, progress, limits)
                os.replace(part, target)
                return
            except MirrorError as error:
                reasons.append(f"{urlsplit(url).netloc} {error.reason}")
                say(reasons[-1])
        if part.exists() and not part.stat().st_size:
            part.unlink()
    except (DiskError, OSError) as error:
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(
            f"{target} can't be written: {reason}; {entry.size:,} bytes are needed",
            "free some space, or set ASCSEG_HOME to a folder on another disk",
        ) from error
    raise DownloadError(
        f"{entry.name}: no mirror delivered it: {'; '.join(reasons)}",
        f"check network, proxy (HTTPS_PROXY) and certificates (SSL_CERT_FILE), or put {entry.file} at {target}",
    )


def _from_mirror(
    client: OpenerDirector, url: str, entry: Entry, part: Path, progress: Progress, limits: Limits
) -> None:
    """Complete the partial file from one mirror and check it, asking again while that promises anything."""
    failures, furthest = 0, _length(part)
    while True:
        have = _length(part)
        try:
            _complete(client, url, entry, part, progress, limits)
            _check(part, entry)
            return
        except MirrorError as error:
            if error.restart:
                part.unlink(missing_ok=True)
                if have:  # earlier bytes may be to blame: the same mirror once more, from zero
                    continue
            failures = 0 if _length(part) >= furthest + PIECE else failures + 1
            furthest = max(furthest, _length(part))
            if not error.again or failures >= limits.attempts:
                raise
            time.sleep(limits.pause * failures)


def _complete(
    client: OpenerDirector, url: str, entry: Entry, part: Path, progress: Progress, limits: Limits
) -> None:
    """Bring the partial file to the manifest's size and onto the disk."""
    size = entry.size or 0
    with part.open("r+b" if part.exists() else "w+b") as file:
        have = file.seek(0, os.SEEK_END)
        if have > size:
            have = 0
        if have < size:
            transfer(client, url, file, have, size, limits, progress)
        file.flush()
        os.fsync(file.fileno())


def _check(part: Path, entry: Entry) -> None:
    digest = store.file_sha256(part)
    if digest != entry.sha256:
        expected = f"{entry.sha256}"[:12]
        raise MirrorError(f"sends wrong bytes (sha256 {digest[:12]}…, not {expected}…)", restart=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
