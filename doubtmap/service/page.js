"use strict";
const find = (id) => document.getElementById(id);
const about = JSON.parse(document.querySelector("main").dataset.about);
const canvas = find("canvas"), context = canvas.getContext("2d");
let shown = null; // the image that is looked at: picture, width, height, classes, doubts
let point = null; // the pixel whose values are read: [x, y]
let asked = 0; // the newest request; answers to older ones are dropped

const number = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toPrecision(4));
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
const score = () => find("score").value;
const layer = () => document.querySelector("input[name=layer]:checked").value;

function say(text, failed = false) {
  find("status").textContent = text;
  find("status").classList.toggle("failed", failed);
}

function tensors(buffer, length) {
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 0, length)));
  let start = length;
  const found = new Map();
  for (const output of head.outputs) {
    const bytes = buffer.slice(start, (start += output.parameters.binary_data_size));
    const kind = { UINT8: Uint8Array, INT32: Int32Array, FP32: Float32Array }[output.datatype];
    found.set(output.name, { shape: output.shape, values: new kind(bytes) });
  }
  return found;
}

async function drawn(file) {
  const url = URL.createObjectURL(file), picture = new Image();
  try {
    picture.src = url;
    await picture.decode();
    return picture;
  } catch {
    return null; // a kind that the browser cannot show; the network may still have read it
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function look(file) {
  const mine = ++asked, begun = performance.now();
  say(`Asking the network about ${file.name} …`);
  try {
    const [picture, response] = await Promise.all([
      drawn(file),
      fetch("/doubt?answer=tensors", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } }),
    ]);
    if (mine !== asked) return;
    if (!response.ok) {
      say((await response.json()).error, true);
      return;
    }
    const length = Number(response.headers.get("Inference-Header-Content-Length"));
    const found = tensors(await response.arrayBuffer(), length);
    if (mine !== asked) return;
    begin(file, picture, found);
    say(`${file.name}: ${shown.width} × ${shown.height} pixels, answered in ${((performance.now() - begun) / 1000).toFixed(2)} s.`);
  } catch (error) {
    if (mine === asked) say(`The service did not answer (${error.message}). Is it still running?`, true);
  }
}

function begin(file, picture, found) {
  const classes = found.get("classes");
  const [, height, width] = classes.shape;
  found.delete("classes");
  shown = { picture, width, height, classes: classes.values, doubts: found };
  point = null;
  canvas.width = width;
  canvas.height = height;
  canvas.style.width = `min(100%, ${(78 * width) / height}vh)`;
  find("stage").hidden = false;
  find("drop").classList.add("small");
  find("invitation").textContent = "Drop another image";
  find("readout").textContent = "Point at a pixel, or focus the image and use the arrow keys.";
  photograph();
  choose();
  legend();
}

const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
const ramp = Uint32Array.from(about.ramp, packed), colours = Uint32Array.from(about.colours, packed);

function surface(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function photograph() {
  const { picture, width, height } = shown;
  shown.photograph = surface(width, height);
  const pen = shown.photograph.getContext("2d");
  pen.fillStyle = "#808080";
  pen.fillRect(0, 0, width, height);
  if (picture) pen.drawImage(picture, 0, 0, width, height);
  shown.layer = surface(width, height);
  shown.laid = new ImageData(width, height);
  shown.words = new Uint32Array(shown.laid.data.buffer);
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function robust(values) {
  // as reports do: limits that a few extreme pixels do not move
  const step = Math.max(1, Math.floor(values.length / 50000)), some = [];
  for (let index = 0; index < values.length; index += step) some.push(values[index]);
  const sorted = Float32Array.from(some).sort(), at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return at(0.995) > at(0.01) ? [at(0.01), at(0.995)] : extremes(values);
}

function choose() {
  const values = shown.doubts.get(score()).values, natural = about.scales[score()];
  shown.limits = natural || extremes(values);
  const [low, high] = shown.limits, [dark, bright] = natural || robust(values), limit = about.thresholds[score()];
  const place = limit === undefined || high <= low ? 0 : (1000 * (limit - low)) / (high - low);
  find("threshold").value = Math.round(Math.min(1000, Math.max(0, place)));
  shown.exact = limit === undefined ? null : limit;
  find("low").textContent = number(dark);
  find("high").textContent = number(bright);
  let sum = 0;
  for (const value of values) sum += value;
  shown.mean = sum / values.length;
  const scale = bright > dark ? 255 / (bright - dark) : 0;
  shown.places = Uint8ClampedArray.from(values, (value) => (value - dark) * scale);
  draw();
}

function threshold() {
  if (shown.exact !== null) return shown.exact;
  const place = Number(find("threshold").value) / 1000;
  return place === 0 ? -Infinity : shown.limits[0] + place * (shown.limits[1] - shown.limits[0]);
}

function draw() {
  if (!shown) return;
  const { words, classes, places } = shown;
  const values = shown.doubts.get(score()).values, kind = layer(), limit = threshold();
  let above = 0;
  if (kind === "classes") for (let index = 0; index < values.length; index++) words[index] = colours[classes[index]];
  for (let index = 0; index < values.length; index++) {
    const over = values[index] > limit;
    above += over;
    if (kind === "doubt") words[index] = over ? ramp[places[index]] : 0;
  }
  context.globalAlpha = 1;
  context.drawImage(shown.photograph, 0, 0);
  if (kind !== "image") {
    shown.layer.getContext("2d").putImageData(shown.laid, 0, 0);
    context.globalAlpha = Number(find("opacity").value) / 100;
    context.drawImage(shown.layer, 0, 0);
    context.globalAlpha = 1;
  }
  mark();
  find("opacity-said").textContent = `${find("opacity").value} %`;
  find("threshold-said").textContent = limit === -Infinity ? "none" : `above ${number(limit)}`;
  find("scale").hidden = kind !== "doubt";
  figures(limit === -Infinity ? null : above / values.length);
}

function figures(above) {
  const list = find("figures");
  list.replaceChildren();
  for (const [name, value] of [["mean doubt", number(shown.mean)], ["above the threshold", above === null ? "–" : percent(above)]]) {
    const entry = document.createElement("div");
    entry.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
    list.append(entry);
  }
}

function legend() {
  const counts = new Map();
  for (const index of shown.classes) counts.set(index, (counts.get(index) || 0) + 1);
  const entries = [...counts].sort((a, b) => b[1] - a[1]).map(([index, count]) => {
    const entry = document.createElement("li"), mark = document.createElement("span");
    mark.className = "mark";
    mark.style.background = `rgb(${about.colours[index].join(" ")})`;
    entry.append(mark, `${about.names[index]} `, Object.assign(document.createElement("small"), { textContent: percent(count / shown.classes.length) }));
    return entry;
  });
  find("legend").replaceChildren(...entries);
}

function mark() {
  if (!point) return;
  const size = Math.max(6, canvas.width / 60), [x, y] = point;
  context.lineWidth = Math.max(1, canvas.width / 500);
  for (const [colour, shift] of [["#000", context.lineWidth], ["#fff", 0]]) {
    context.strokeStyle = colour;
    context.strokeRect(x + 0.5 - size / 2 + shift, y + 0.5 - size / 2 + shift, size, size);
  }
}

function read() {
  const [x, y] = point, index = y * shown.width + x;
  const doubts = [...shown.doubts].map(([name, { values }]) => `${name} ${number(values[index])}`);
  find("readout").textContent = `row ${y}, column ${x}: ${about.names[shown.classes[index]]}, ${doubts.join(", ")}`;
}

function under(event) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const x = Math.floor((event.clientX - box.left) / scale), y = Math.floor((event.clientY - box.top) / scale);
  return x >= 0 && y >= 0 && x < shown.width && y < shown.height ? [x, y] : null;
}

canvas.addEventListener("pointermove", (event) => {
  const at = under(event);
  if (!at) return;
  const had = point;
  point = at;
  read();
  point = null;
  if (had) draw();
});
canvas.addEventListener("pointerdown", (event) => {
  point = under(event);
  if (point) read();
  draw();
});
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step || !shown) return;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1, [x, y] = point || [shown.width >> 1, shown.height >> 1];
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  point = [within(x + far * step[0], shown.width), within(y + far * step[1], shown.height)];
  read();
  draw();
});

let waiting = false;
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}
find("opacity").addEventListener("input", soon);
find("threshold").addEventListener("input", () => {
  if (shown) shown.exact = null;
  soon();
});
find("score").addEventListener("change", () => shown && choose());
document.querySelectorAll("input[name=layer]").forEach((button) => button.addEventListener("change", soon));

find("file").addEventListener("change", () => find("file").files.length && look(find("file").files[0]));
for (const name of ["dragenter", "dragover"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
for (const name of ["dragleave", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    if (name === "drop" && event.dataTransfer.files.length) look(event.dataTransfer.files[0]);
  });
document.addEventListener("paste", (event) => event.clipboardData.files.length && look(event.clipboardData.files[0]));

for (const name of Object.keys(about.scales)) find("score").append(new Option(name, name));
const strip = find("ramp").getContext("2d"), bar = strip.createImageData(256, 1);
about.ramp.forEach((colour, index) => bar.data.set([...colour, 255], 4 * index));
strip.putImageData(bar, 0, 0);
