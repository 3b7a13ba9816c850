// The exported file in onnxruntime-web, in a thread of its own, so that the page stays alive meanwhile.
// Takes { model: ArrayBuffer } or { picture: Blob }; answers { ready }, { width, height, rgba, mask, milliseconds }
// or { wrong }.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.logLevel = "fatal";
let session = null;

async function load(model) {
  session = null;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  if (session.inputNames.join() !== "image" || !session.outputNames.includes("mask")) {
    session = null;
    throw new Error("it isn't a file that `ascseg export --format onnx` wrote");
  }
  return { ready: true };
}

// Upright pixels as they are stored: no colour profile is applied, as in Python.
async function decode(picture) {
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, rgba: context.getImageData(0, 0, width, height).data };
}

function rgbOf(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}

async function segment(picture) {
  if (!session) throw new Error("no exported file is loaded yet");
  const { width, height, rgba } = await decode(picture);
  const started = performance.now();
  const image = new ort.Tensor("uint8", rgbOf(rgba), [1, height, width, 3]);
  const { mask } = await session.run({ image }, ["mask"]);
  return { width, height, rgba, mask: mask.data, milliseconds: performance.now() - started };
}

// One message after the other, in their order.
let last = Promise.resolve();
addEventListener("message", ({ data }) => {
  last = last
    .then(() => (data.model ? load(data.model) : segment(data.picture)))
    .catch((error) => ({ wrong: error instanceof Error ? error.message : String(error) }))
    .then((answer) => postMessage({ number: data.number, ...answer }));
});
