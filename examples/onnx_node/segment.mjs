// Segments one picture with an exported file in Node; nothing of ascseg is needed.
//
//     ascseg export --dataset kvasir --format onnx --output kvasir.onnx     (once, where ascseg is)
//     npm install
//     node segment.mjs kvasir.onnx polyp.jpg mask.png

import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

const [model, picture, target] = process.argv.slice(2);
if (!target) {
  console.error("usage: node segment.mjs MODEL.onnx PICTURE MASK.png");
  process.exit(2);
}

const session = await InferenceSession.create(model);

// Upright RGB, 8 bits a channel, one row after the other.
const { data, info } = await sharp(picture)
  .rotate()
  .removeAlpha()
  .toColourspace("srgb")
  .raw()
  .toBuffer({ resolveWithObject: true });
const image = new Tensor("uint8", new Uint8Array(data), [1, info.height, info.width, 3]);

const { mask } = await session.run({ image }, ["mask"]);

const raw = { width: info.width, height: info.height, channels: 1 };
await sharp(mask.data.map((value) => 255 * value), { raw }).toColourspace("b-w").png().toFile(target);
const found = mask.data.reduce((sum, value) => sum + value, 0);
console.log(`${((100 * found) / mask.data.length).toFixed(1)}% of ${picture} is foreground`);
