"""Adds the hashes of its training images to a weights file of an earlier release, which didn't write them.

    python -m ascseg_cli.training.remember FILE FOLDER

FOLDER is the data set that it was trained on: its split must hash to what the file says. Only the metadata change.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ascseg_cli.data.fingerprint import encode
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.leaks import fingerprints_of
from ascseg_cli.errors import AscsegError, DataError
from ascseg_cli.network import checkpoint


def remember(file: Path, folder: Path) -> int:
    """Write `training_images` into a weights file, in place; returns how many they are.

    Raises DataError where the folder's split isn't the file's, or an image can't be read; WeightsError.
    """
    weights = checkpoint.read(file)
    split = open_dataset(folder).split()
    stated = weights.metadata.split.get("sha256")
    if split.sha256() != stated:
        raise DataError(
            f"{file} was trained with the split {str(stated)[:16]}…, {folder} has {split.sha256()[:16]}…",
            "name the folder that it was trained on, with no image added or missing",
        )
    known, failed = fingerprints_of([pair.image for pair in split.train], os.cpu_count() or 1)
    for path, error in failed.items():
        raise DataError(f"{path}: {error.message}", error.hint)
    metadata = weights.metadata.model_copy(update={"training_images": encode(known.values())})
    checkpoint.write(file, weights.tensors, metadata)
    return len(known)


if __name__ == "__main__":
    try:
        count = remember(Path(sys.argv[1]), Path(sys.argv[2]))
    except IndexError:
        sys.exit(f"usage: {__doc__.splitlines()[2].strip()}")
    except AscsegError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
    sys.stderr.write(f"{sys.argv[1]}: {count:,} training images remembered\n")
