// The page: takes images, asks a back end, and draws the answers. server.js and onnx.js are back ends:
// connect() returns what GET /model returns, predict(file) and explain(file) an entry of what the server returns.
// Names of files and classes are written as textContent only.

const AT_ONCE = 4; // images that are classified at a time, so that the server can make batches
const TOP = 5;
const MORE = 25;

const $ = (id) => document.getElementById(id);
const cards = new Set();
let backend;
let model;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child != null));
  return node;
}

const name = (text, tag = "bdi") => element(tag, { textContent: text, dir: "auto" });

function percent(value) {
  if (value > 0 && value < 0.001) return "< 0.1 %";
  if (value < 1 && value > 0.999) return "> 99.9 %";
  return `${(100 * value).toFixed(1)} %`;
}

const number = (value) => Number(value.toPrecision(5)).toLocaleString("en");

function listed(labels, most = 6) {
  const nodes = labels.slice(0, most).flatMap((label, index) => (index ? [", ", name(label)] : [name(label)]));
  return labels.length > most ? [...nodes, ` and ${labels.length - most} more`] : nodes;
}

// ---------------------------------------------------------------- the model

export async function start(chosenBackend) {
  backend = chosenBackend;
  $("problem").hidden = true;
  $("problem").classList.remove("late");
  $("summary").textContent = "Loading the model";
  listen();
  try {
    model = await withKey(() => backend.connect());
  } catch (error) {
    $("summary").textContent = "";
    showProblem(error.message);
    return;
  }
  document.title = model.name;
  $("title").textContent = model.name;
  $("summary").textContent = summary();
  const facts = Object.entries({
    Metrics: Object.entries(model.metrics ?? {}).filter(([, value]) => typeof value === "number")
      .map(([metric, value]) => `${metric} ${number(value)}`).join(", "),
    Classes: listed(model.class_names ?? [], 30),
    "Coverage of prediction sets": model.coverage && percent(model.coverage),
    Weights: model.licence,
    Version: `Saccade ${model.saccade_version}`,
  });
  for (const [term, fact] of facts) {
    if (!fact?.length) continue;
    $("facts").append(element("dt", { textContent: term }), element("dd", {}, ...[fact].flat()));
  }
  $("about").hidden = false;
  $("where").textContent = backend.where;
  $("drop").hidden = false;
  $("camera").hidden = !canTakePhotos();
}

function summary() {
  if (model.problem_type === "regression") return "Predicts a number for each image";
  const classes = `${model.class_names.length.toLocaleString("en")} classes`;
  return model.problem_type === "multilabel" ? `Any number of ${classes} for each image` : `One of ${classes} for each image`;
}

// ---------------------------------------------------------------- the API key

let keyGiven = null; // a promise while the form is shown, so that all requests wait for one answer
let wasAsked = false;

async function withKey(task) {
  for (;;) {
    try {
      return await task();
    } catch (error) {
      if (error.status !== 401) throw error;
      keyGiven ??= askForKey();
      await keyGiven;
    }
  }
}

function askForKey() {
  if (wasAsked) showProblem("The server did not accept this key.");
  if (!model) $("summary").textContent = "";
  wasAsked = true;
  $("key-form").hidden = false;
  $("key").focus();
  return new Promise((resolve) => {
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      backend.useKey($("key").value.trim());
      $("key").value = "";
      $("key-form").hidden = $("problem").hidden = true;
      keyGiven = null;
      resolve();
    };
  });
}

// ---------------------------------------------------------------- images that come in

function add(files) {
  $("problem").hidden = true;
  const added = [...files].map((file) => new Card(file));
  $("cards").prepend(...added.map((card) => card.node));
  added.forEach((card) => cards.add(card));
  count();
  pump();
}

function pump() {
  const busy = [...cards].filter((card) => card.state === "busy").length;
  const waiting = [...cards].filter((card) => card.state === "waiting");
  for (const card of waiting.slice(0, AT_ONCE - busy)) card.classify().finally(pump);
}

const numOpen = () => [...cards].filter((card) => card.state === "waiting" || card.state === "busy").length;

function count() {
  const open = numOpen();
  const images = `${cards.size} image${cards.size === 1 ? "" : "s"}`;
  $("count").textContent = open ? `${cards.size - open} of ${images}` : images;
  $("results").hidden = !cards.size;
}

function announce(text) {
  $("live").textContent = text;
}

async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.filter(Boolean).map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return new Promise((resolve, reject) => entry.file((file) => resolve([file]), reject));
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at a time
    if (!part.length) return files;
    files.push(...(await Promise.all(part.map(filesIn))).flat());
  }
}

function listen() {
  for (const id of ["files", "capture"]) {
    $(id).addEventListener("change", () => {
      add($(id).files);
      $(id).value = ""; // the same file may be chosen again
    });
  }
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? $("drop").classList.remove("over"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    if (!model) return;
    const files = await filesOf(event.dataTransfer);
    if (files.length) add(files);
    else showProblem("What was dropped contains no file. Save an image of another page first, or copy it and paste it here.");
  });
  addEventListener("paste", (event) => {
    if (model && event.clipboardData?.files.length) add(event.clipboardData.files);
  });
  $("clear").addEventListener("click", () => {
    cards.forEach((card) => card.remove());
    $("files").focus();
    announce("All images were removed.");
  });
  $("camera").addEventListener("click", takePhoto);
  $("camera-close").addEventListener("click", () => $("camera-dialog").close());
  $("camera-dialog").addEventListener("close", () => {
    $("video").srcObject?.getTracks().forEach((track) => track.stop());
    $("video").srcObject = null;
  });
  $("shoot").addEventListener("click", shoot);
}

function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

// ---------------------------------------------------------------- the camera

const isPhone = () => matchMedia("(pointer: coarse)").matches && "capture" in $("capture");
const canTakePhotos = () => isPhone() || Boolean(navigator.mediaDevices?.getUserMedia);

async function takePhoto() {
  if (isPhone()) return $("capture").click(); // the phone's own camera is better than a video in a page
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
  } catch (error) {
    showProblem(error.name === "NotAllowedError"
      ? "The browser does not allow this page to use the camera. Allow it in the browser's settings, or choose an image."
      : "No camera was found. Choose an image instead.");
    return;
  }
  $("shoot").disabled = true; // until there is a picture
  $("camera-dialog").showModal();
  await $("video").play();
  $("shoot").disabled = false;
}

async function shoot() {
  const video = $("video");
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  $("camera-dialog").close();
  add([new File([blob], `Photo ${new Date().toLocaleTimeString("en-GB")}.jpg`, { type: "image/jpeg" })]);
}

// ---------------------------------------------------------------- one image and its result

class Card {
  constructor(file) {
    this.file = file;
    this.state = "waiting";
    this.url = URL.createObjectURL(file);
    this.photo = element("img", { src: this.url, alt: "", decoding: "async" });
    this.photo.onerror = () => this.photo.replaceWith(element("span", { className: "no-preview", textContent: "No preview in this browser" }));
    this.picture = element("div", { className: "picture" }, this.photo);
    const removeButton = element("button", { type: "button", className: "quiet", title: "Remove" }, element("span", { textContent: "×", ariaHidden: "true" }));
    removeButton.setAttribute("aria-label", `Remove ${file.name}`);
    removeButton.onclick = () => this.removeAndFocus();
    this.body = element("div", { className: "body" });
    const heading = name(file.name, "h3");
    heading.title = file.name;
    this.node = element("li", { className: "card" }, this.picture, element("div", { className: "side" },
      element("div", { className: "head" }, heading, removeButton), this.body));
    this.show("progress", "Waiting");
  }

  show(className, text) {
    this.body.replaceChildren(element("p", { className, textContent: text }));
  }

  async classify() {
    this.state = "busy";
    this.show("progress", "Classifying");
    try {
      this.prediction = await withKey(() => backend.predict(this.file, () => this.show("progress", "The server is busy; waiting")));
      this.state = "done";
      this.body.replaceChildren(...this.drawn());
    } catch (error) {
      this.state = "failed";
      this.show("error", error.message);
    }
    if (!cards.has(this)) return;
    count();
    if (cards.size === 1 || this.state === "failed") announce(`${this.file.name}: ${this.body.firstChild.textContent}`);
    else if (!numOpen()) announce(`${cards.size} images are classified.`);
  }

  drawn() {
    const { label, probability, probabilities, set, unknown, novelty } = this.prediction;
    const verdict = element("p", { className: "verdict" });
    const notes = [];
    if (model.problem_type === "regression") verdict.append(element("strong", { textContent: number(label) }));
    else if (model.problem_type === "multilabel") {
      verdict.append(...(label.length ? label.map((one) => name(one, "strong")) : ["None of the classes"]));
    } else if (unknown) {
      verdict.append(element("strong", { className: "unknown", textContent: "Unknown" }));
      notes.push(["Unlike the training images; the nearest class is ", name(label), ` (${percent(probability)}).`]);
    } else verdict.append(name(label, "strong"), element("span", { textContent: percent(probability) }));
    if (unknown && !["binary", "multiclass"].includes(model.problem_type)) {
      notes.push([element("strong", { className: "unknown", textContent: "Unknown" }), ": unlike the training images."]);
    }
    if (set) {
      const coverage = model.coverage ? `${percent(model.coverage).replace(".0", "")} ` : "";
      if (model.problem_type === "regression") notes.push([`${coverage}interval: ${set.map(number).join(" to ")}`]);
      else notes.push([`${coverage}prediction set: `, ...(set.length ? listed(set) : ["none of the classes"])]);
    }
    if (novelty != null) notes.push([`Novelty ${novelty.toFixed(3)}`]);
    const parts = [verdict];
    if (probabilities) parts.push(bars(probabilities, new Set([label].flat().map(String)), this.file.name));
    if (notes.length) parts.push(element("div", { className: "notes" }, ...notes.map((note) => element("p", {}, ...note))));
    if (model.can_explain) parts.push(this.explainButton());
    return parts;
  }

  explainButton() {
    const button = element("button", { type: "button", textContent: "Explain" });
    button.setAttribute("aria-label", `Explain ${this.file.name}`);
    button.onclick = async () => {
      button.disabled = true;
      button.textContent = "Explaining";
      try {
        const explanation = await withKey(() => backend.explain(this.file));
        const drawn = this.explained(explanation);
        button.replaceWith(drawn);
        drawn.querySelector("input")?.focus();
        announce(`${this.file.name} is explained.`);
      } catch (error) {
        button.disabled = false;
        button.textContent = "Explain";
        button.nextElementSibling?.remove();
        button.after(element("p", { className: "error", textContent: error.message, role: "alert" }));
      }
    };
    return element("div", {}, button);
  }

  explained({ label, heatmap, neighbours }) {
    const heat = element("img", { className: "heat", src: heatmap, alt: "" });
    this.picture.append(heat);
    const slider = element("input", { type: "range", min: 0, max: 100, value: 100 });
    slider.oninput = () => (heat.style.opacity = slider.value / 100);
    const of = typeof label === "string" ? [" for ", name(label)] : [];
    const parts = [element("label", { className: "row" }, element("span", {}, "Saliency overlay", ...of), slider)];
    if (neighbours?.length) {
      const items = neighbours.map(({ label, similarity, thumbnail }) => {
        return element("li", {}, element("img", { src: thumbnail, alt: "" }), name(label ?? "no label", "span"),
          element("small", { textContent: similarity.toFixed(2), title: "Cosine similarity" }));
      });
      parts.push(element("h4", { textContent: "Most similar training images" }), element("ul", { className: "neighbours" }, ...items));
    }
    return element("div", { className: "explained" }, ...parts);
  }

  remove() {
    cards.delete(this);
    this.node.remove();
    URL.revokeObjectURL(this.url);
    count();
  }

  removeAndFocus() {
    const next = this.node.nextElementSibling ?? this.node.previousElementSibling;
    this.remove();
    (next?.querySelector(".head button") ?? $("files")).focus();
    announce(`${this.file.name} was removed.`);
  }
}

// ---------------------------------------------------------------- probabilities as bars

function bars(probabilities, given, file) {
  const sorted = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  const list = element("ol", { className: "bars" });
  list.setAttribute("aria-label", `Probabilities of ${file}`);
  const box = element("div", {}, list);
  let wanted = TOP;
  let search = "";
  const draw = () => {
    const found = sorted.filter(([label]) => label.toLocaleLowerCase().includes(search));
    list.replaceChildren(...found.slice(0, wanted).map(([label, probability]) => bar(label, probability, given.has(label))));
    const hidden = found.length - Math.min(wanted, found.length);
    more.hidden = !hidden;
    more.textContent = hidden > MORE ? `Show ${MORE} more of ${hidden.toLocaleString("en")}` : `Show ${hidden} more`;
    none.hidden = found.length > 0;
  };
  const none = element("p", { className: "progress", textContent: "No class has this text in its name." });
  const more = element("button", { type: "button", className: "link" });
  more.onclick = () => {
    const first = list.children.length;
    wanted += MORE;
    if (sorted.length > MORE && !box.querySelector("input")) box.prepend(finder);
    draw();
    list.children[first].tabIndex = -1;
    list.children[first].focus(); // the button may be gone
  };
  const input = element("input", { type: "search", placeholder: "Find a class", autocomplete: "off" });
  input.setAttribute("aria-label", `Find a class of ${file}`);
  input.oninput = () => {
    search = input.value.trim().toLocaleLowerCase();
    draw();
  };
  const finder = element("p", { className: "finder" }, input);
  box.append(none, more);
  draw();
  return box;
}

function bar(label, probability, isGiven) {
  const fill = element("span");
  fill.style.width = `${100 * probability}%`; // through CSSOM, which the content security policy allows
  const track = element("span", { className: "track" }, fill);
  return element("li", { className: isGiven ? "given" : "" }, name(label, "span"),
    element("span", { className: "value", textContent: percent(probability) }), track);
}

