"""`python -m ascseg_cli.training FOLDER --output FILE`: train one weights file; see docs/training.md."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from pydantic import ValidationError

from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.errors import AscsegError
from ascseg_cli.training.run import train
from ascseg_cli.training.settings import Settings, augmentation_for


def main() -> int:
    """Parse, train, report; exit code 0, 2 for wrong settings, 3 where nothing could be trained."""
    parser = argparse.ArgumentParser(prog="python -m ascseg_cli.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="a data set in its official layout, or images/ beside masks/")
    parser.add_argument("--output", type=Path, required=True, help="the weights file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, field in Settings.model_fields.items():
        if name != "augmentation":
            text = field.description or f"default: {field.default}"
            parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=text)
    given = vars(parser.parse_args())
    folder, output, device = given.pop("folder"), given.pop("output"), torch.device(given.pop("device"))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    try:
        settings = Settings(**given, augmentation=augmentation_for(open_dataset(folder).layout))
        train(folder, settings, output, device)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"--{part} ".replace("_", "-") for part in first["loc"])
        parser.error(f"{where}{first['msg']}")
    except AscsegError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
