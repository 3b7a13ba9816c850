"""Segments one picture with an exported file. Needs onnxruntime, numpy and Pillow; nothing of ascseg.

ascseg export --dataset kvasir --format onnx --output kvasir.onnx       # once, where ascseg is
pip install onnxruntime numpy pillow
python segment.py kvasir.onnx polyp.jpg mask.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, picture: str, target: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["ascseg"])
    with Image.open(picture) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))  # (h, w, 3) uint8, upright
    probability, mask = session.run(["probability", "mask"], {"image": pixels[None]})
    Image.fromarray(mask[0] * np.uint8(255)).save(target)
    found = mask[0].astype(bool)
    sure = f", mean probability {probability[0][found].mean():.2f}" if found.any() else ""
    print(f"{about['name']}: {found.mean():.1%} of {picture} is foreground (p ≥ {about['threshold']:g}){sure}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: segment.py MODEL.onnx PICTURE MASK.png")
    main(*sys.argv[1:])
