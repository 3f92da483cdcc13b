// Back end of the page: an exported ONNX file, which onnxruntime-web computes in a worker of this page.

import { start } from "./page.js";

const worker = new Worker(new URL("onnx-worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let numAsked = 0;

worker.onmessage = ({ data: { id, answer, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(answer);
};

function ask(question) {
  return new Promise((resolve, reject) => {
    waiting.set(++numAsked, { resolve, reject });
    worker.postMessage({ id: numAsked, ...question });
  });
}

start({
  where: "Images are classified in this browser and do not leave this device.",
  connect: () => ask({ modelUrl: new URL(document.body.dataset.model, document.baseURI).href }),
  predict: (file) => ask({ file }),
});
