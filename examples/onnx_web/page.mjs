// The page: takes an exported file and pictures, has the worker segment them, and draws what comes back.

const element = (id) => document.getElementById(id);
const worker = new Worker("worker.mjs", { type: "module" });
const waiting = new Map();
let shown = null;
let number = 0;

worker.addEventListener("message", ({ data }) => {
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  data.wrong ? reject(new Error(data.wrong)) : resolve(data);
});
worker.addEventListener("error", () => say("onnxruntime-web isn't here: run npm install in this folder", true));

function ask(question) {
  return new Promise((resolve, reject) => {
    waiting.set(++number, { resolve, reject });
    worker.postMessage({ number, ...question });
  });
}

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
}

async function loadModel(name, content) {
  say(`Loading ${name} …`);
  try {
    await ask({ model: content });
    say(`${name} is ready.`);
  } catch (error) {
    say(`${name} can't be run: ${error.message}`, true);
  }
}

async function segment(file) {
  say(`Segmenting ${file.name} …`);
  element("result").hidden = true;
  try {
    shown = await ask({ picture: file });
  } catch (error) {
    say(`${file.name} can't be segmented: ${error.message}`, true);
    return;
  }
  const found = shown.mask.reduce((sum, value) => sum + value, 0);
  const share = ((100 * found) / shown.mask.length).toFixed(1);
  element("caption").textContent = `${file.name}, ${shown.width} × ${shown.height} px: ${share} % is foreground`;
  draw();
  await offerMask();
  element("result").hidden = false;
  say(`Done in ${(shown.milliseconds / 1000).toFixed(1)} s.`);
}

// The mask's edge is drawn opaque, light beside dark: seen on any picture, also without colour vision.
function draw() {
  const { width, height, rgba, mask } = shown;
  const pixels = new ImageData(new Uint8ClampedArray(rgba), width, height);
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
  for (let y = 0; element("shown").checked && y < height; y++) {
    for (let x = 0; x < width; x++) {
      const here = inside(x, y);
      const edge = [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]].some(([u, v]) => inside(u, v) !== here);
      if (here || edge) paint(pixels.data, 4 * (y * width + x), here, edge);
    }
  }
  const canvas = Object.assign(element("overlay"), { width, height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function paint(data, at, here, edge) {
  const colour = here ? [255, 221, 0] : [0, 0, 0];
  const strength = edge ? 1 : 0.25;
  for (let c = 0; c < 3; c++) data[at + c] = (1 - strength) * data[at + c] + strength * colour[c];
}

async function offerMask() {
  const { width, height, mask } = shown;
  const pixels = new ImageData(width, height);
  new Uint32Array(pixels.data.buffer).set(Uint32Array.from(mask, (value) => (value ? 0xffffffff : 0xff000000)));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  URL.revokeObjectURL(element("save").href);
  element("save").href = URL.createObjectURL(await canvas.convertToBlob());
}

async function take(file) {
  if (!file) return;
  if (file.name.toLowerCase().endsWith(".onnx")) await loadModel(file.name, await file.arrayBuffer());
  else await segment(file);
}

for (const id of ["model", "picture"]) {
  element(id).addEventListener("change", (event) => take(event.target.files[0]));
}
element("shown").addEventListener("change", () => shown && draw());
const drop = element("drop");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}

// A file of this name beside the page is taken without being asked for.
const beside = await fetch("model.onnx");
if (beside.ok) await loadModel("model.onnx", await beside.arrayBuffer());
else say("Choose an exported file first: ascseg export --dataset kvasir --format onnx");
