// Back end of the page: the server that sent it.

import { start } from "./page.js";

const KEY = "saccade-api-key";
const MAX_RETRIES = 5;

start({
  where: "Images are sent to this server only.",
  connect: () => request("model"),
  predict: async (file, onWait) => (await request("predict", await form(file), onWait)).predictions[0],
  explain: async (file, onWait) => (await request("explain", await form(file), onWait)).explanations[0],
  useKey: (key) => sessionStorage.setItem(KEY, key),
});

async function form(file) {
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    throw new Error("The browser cannot read this file. It may be a folder, or have been moved or changed.");
  }
  const body = new FormData();
  body.append("files", new Blob([bytes], { type: file.type || "application/octet-stream" }), file.name);
  return body;
}

async function request(path, body, onWait = () => {}) {
  for (let attempt = 0; ; attempt++) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", body, headers, cache: "no-store" });
    } catch {
      throw new Error("The server does not answer. Check that it is running, and try again.");
    }
    const answer = await response.json().catch(() => null);
    if (response.ok && answer) return answer;
    if (response.status === 503 && attempt < MAX_RETRIES) {
      onWait();
      const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, 30);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    const message = answer?.error?.message ?? `The server answered with status ${response.status}.`;
    throw Object.assign(new Error(message), { status: response.status });
  }
}
