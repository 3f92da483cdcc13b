// Loads the exported model and classifies images, off the page's thread. Preprocessing is a part of the model.

const METADATA_PROPS = 14; // field of ModelProto in onnx.proto
const ORT = new URL("../ort/", import.meta.url).href;

let ort;
let session;
let metadata;
let last = Promise.resolve(); // a session computes one image at a time

onmessage = ({ data: { id, modelUrl, file } }) => {
  last = last.then(() => (modelUrl ? load(modelUrl) : predict(file))).then(
    (answer) => postMessage({ id, answer }),
    (error) => postMessage({ id, error: error.message }),
  );
};

async function load(url) {
  const name = decodeURIComponent(url.split("/").pop());
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new Error(`The model file ${name} was not found beside this page.`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  metadata = metadataOf(bytes);
  if (!metadata) throw new Error(`${name} was not exported by Saccade: it has no Saccade metadata.`);
  try {
    ort = await import(`${ORT}ort.wasm.min.mjs`);
  } catch {
    throw new Error("onnxruntime-web was not found in the folder ort/ beside this page. README.md describes how to add it.");
  }
  ort.env.wasm.wasmPaths = ORT;
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads need headers that simple servers do not send
  try {
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`onnxruntime-web cannot load ${name}: ${error.message ?? error}`);
  }
  const licence = metadata.models.map((network) => `${network.name}: ${network.license || "no pretrained weights"}`).join(", ");
  return { ...metadata, name: name.replace(/\.onnx$/, ""), can_explain: false, licence };
}

function metadataOf(bytes) {
  const text = new TextDecoder();
  try {
    for (const [field, content] of fieldsOf(bytes)) {
      if (field !== METADATA_PROPS) continue;
      const { 1: key, 2: value } = Object.fromEntries(fieldsOf(content));
      if (text.decode(key) === "saccade") return JSON.parse(text.decode(value));
    }
  } catch {
    return null; // not an ONNX file
  }
  return null;
}

// Yields [number, content] of the fields of a protobuf message that have a length.
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error("truncated");
      const byte = bytes[at++];
      value += (byte & 127) * scale; // not with bit operators, which are limited to 32 bits
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("not a protobuf message");
  }
}

async function predict(file) {
  const outputs = await session.run({ images: await decode(file) });
  const values = (name) => (outputs[name] ? Array.from(outputs[name].data) : null);
  const classesWhere = (mask) => mask && metadata.class_names.filter((_, index) => mask[index]);
  const novelty = values("novelty")?.[0] ?? null;
  const unknown = novelty == null || metadata.novelty_threshold == null ? null : novelty > metadata.novelty_threshold;
  if (metadata.problem_type === "regression") {
    return { label: values("prediction")[0], set: values("interval"), novelty, unknown };
  }

  const of_classes = values("probabilities");
  const probabilities = Object.fromEntries(metadata.class_names.map((name, index) => [name, of_classes[index]]));
  if (metadata.problem_type === "multilabel") return { label: classesWhere(values("given")), probabilities, novelty, unknown };
  const index = Number(values("label")[0]);
  return {
    label: metadata.class_names[index],
    probability: of_classes[index],
    probabilities,
    set: classesWhere(values("set_mask")),
    novelty,
    unknown,
  };
}

// Decodes as the predictor does: turned as EXIF says, values as stored whatever the colour profile, and transparency over
// white, unless the model takes it as a fourth channel.
async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser cannot read the file as an image. JPEG, PNG and WebP are read by all browsers.");
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const { channels } = metadata.preprocessing;
  context.fillStyle = "white";
  if (channels < 4) context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8Array(channels * width * height);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    if (channels === 1) pixels[to++] = (19595 * rgba[from] + 38470 * rgba[from + 1] + 7471 * rgba[from + 2] + 32768) >> 16;
    else for (let channel = 0; channel < channels; channel++) pixels[to++] = rgba[from + channel];
  }
  return new ort.Tensor("uint8", pixels, [1, height, width, channels]);
}
