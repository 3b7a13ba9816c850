"""The run folder: what lies where, and who may write into it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.errors import OutputError, UsageError
from ascseg_cli.training.events import EVENTS
from ascseg_cli.whole_file import PART, is_part, output_error, write_whole

SETTINGS, LOG, SPLIT, WEIGHTS = "settings.toml", "log.csv", "split.csv", "weights.safetensors"
CARD, CURVES, OVERLAYS = "model_card.md", "curves.png", "overlays.jpg"
TEACHER = "teacher.safetensors"
CHECKPOINT = re.compile(r"checkpoint-(\d{7,})\.safetensors")
_MANY = re.compile(f"{CHECKPOINT.pattern}|{EVENTS.pattern}")
SEED = re.compile(r"seed-\d+")
SEEDS = "seeds.csv"
_LOCK = ".lock"
_KEPT = 2


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    root: Path

    def check(self, mode: str) -> None:
        """Raise UsageError where a run in `mode` (new, resume, overwrite) may not write into this folder."""
        if not os.path.lexists(self.root):
            return
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; --output must be a folder")
        names = {path.name for path in self.root.iterdir()}
        present = {name for name in names if name != _LOCK and not name.endswith(PART)}
        if not present:
            return
        ours = SETTINGS in present or any(SEED.fullmatch(name) for name in present)
        if not ours:
            raise UsageError(f"{self.root} isn't empty and holds no training run", "give another --output")
        if mode == "new":
            raise UsageError(
                f"{self.root} holds a training run",
                "--resume goes on with it, --overwrite starts afresh; or give another --output",
            )

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs out of the folder during the block, where its file system has locks.

        The system lets go of the lock when a process ends, however it ends. Raises OutputError.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / _LOCK)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(NotImplementedError):
                lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"another run is training in {self.root}", "wait for its end, or give another --output"
            ) from error
        except OSError as error:
            raise output_error(self.root, error) from error
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Remove what earlier runs wrote, and nothing else. Raises OutputError."""
        if not self.root.is_dir():
            return
        names = {SETTINGS, LOG, SPLIT, WEIGHTS, CARD, CURVES, OVERLAYS, TEACHER, SEEDS}
        try:
            for path in self.root.iterdir():
                if SEED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                    RunFolder(path).clear()
                    if not any(path.iterdir()):
                        shutil.rmtree(path)
                elif path.name in names or _MANY.fullmatch(path.name) or is_part(path.name):
                    path.unlink()
        except OSError as error:
            raise output_error(self.root, error) from error

    def has(self, name: str) -> bool:
        """Whether the folder holds a file of that name."""
        return (self.root / name).is_file()

    def write(self, name: str, content: bytes | str) -> None:
        """Put a file in its place, whole and on the disk. Raises OutputError."""
        write_whole(self.root / name, content.encode("utf-8") if isinstance(content, str) else content)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are there, the newest first."""
        if not self.root.is_dir():
            return []
        found = [(int(m[1]), p) for p in self.root.iterdir() if (m := CHECKPOINT.fullmatch(p.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after so many steps belongs."""
        return self.root / f"checkpoint-{step:07}.safetensors"

    def drop_old_checkpoints(self) -> None:
        """Keep the two newest checkpoints, and no file that a killed run left half-written."""
        for path in self.checkpoints()[_KEPT:]:
            path.unlink(missing_ok=True)
        for path in self.root.iterdir():
            if is_part(path.name):
                path.unlink(missing_ok=True)
