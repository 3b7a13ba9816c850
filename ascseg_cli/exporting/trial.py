"""Runs an exported file on arrays, in a process of its own that has its runtime and nothing of the network.

    python -m ascseg_cli.exporting.trial FILE FOLDER THREADS

FOLDER holds the images as `*.npy`; each gets an `.npz` with `probability` and `mask`. Prints the runtime as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    file, folder, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    runtime, run = (_onnx if file.suffix == ".onnx" else _torch)(file, threads)
    for images in sorted(folder.glob("*.npy")):
        probability, mask = run(np.load(images))
        np.savez(images.with_suffix(".npz"), probability=probability, mask=mask)
    sys.stdout.write(json.dumps({"runtime": runtime, "torch_loaded": "torch" in sys.modules}) + "\n")


def _onnx(file: Path, threads: int) -> tuple[str, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability, mask = session.run(["probability", "mask"], {"image": images})
        return np.asarray(probability), np.asarray(mask)

    return f"onnxruntime {onnxruntime.__version__}", run


def _torch(file: Path, threads: int) -> tuple[str, Run]:
    import torch

    torch.set_num_threads(threads)
    module = torch.export.load(str(file)).module()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            probability, mask = module(torch.from_numpy(images))
        return probability.numpy(), mask.numpy()

    return f"torch.export {torch.__version__}", run


if __name__ == "__main__":
    main()
