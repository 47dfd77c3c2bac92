// The page: what is looked at, and the keys.
import { Columns } from "./columns.js";
import { byId, complain, element, fetched } from "./elements.js";
import { Grid } from "./grid.js";
import { Pane, Stage, readAhead } from "./panes.js";
import { Side, judge, layersOf } from "./side.js";
import { readAddress, state, writeAddress } from "./state.js";
import { VERDICTS, Verdicts } from "./verdicts.js";

const index = await begin();
const verdicts = new Verdicts(index);
await verdicts.read().catch((error) => complain(error.message));
const table = new Columns(index, verdicts);
let order = [], image = -1, panes = [];

const grid = new Grid(table, verdicts, (chosen) => go(chosen));
const stage = new Stage(byId("stage"), () => writeAddress());
const act = {
  grid: () => { state.image = ""; writeAddress(true); show(); },
  step: (by) => {
    const next = order[order.indexOf(image) + by];
    if (next !== undefined) go(next, false);
  },
  layer: (key) => { state.layer = key; writeAddress(); void look(); },
  opacity: (value) => { state.opacity = Math.min(1, Math.max(0, value)); paintSoon(); },
  threshold: (value) => { state.threshold = value; paintSoon(); },
  objects: (shown) => { state.objects = shown; paintSoon(); },
  runs: (run, other) => {
    state.run = run;
    state.other = other === run ? -1 : other;
    writeAddress();
    void look();
  },
  verdict: (verdict, note) => void judge(verdicts, side, verdict, note),
};
const side = new Side(byId("side"), { table, verdicts, index, act });
const KEYS = [
  ["j or →", "next image", () => act.step(1)],
  ["k or ←", "previous image", () => act.step(-1)],
  ["g or Esc", "back to the grid; Enter opens the marked image", act.grid],
  ["1 … 9", "a layer", (key) => chooseLayer(+key - 1)],
  ["l", "next layer", () => chooseLayer(layersOf(panes).indexOf(state.layer) + 1)],
  ["[ ]", "less and more opacity", (key) => act.opacity(state.opacity + (key === "[" ? -0.05 : 0.05))],
  [", .", "lower and higher threshold", (key) => moveThreshold(key === "," ? -0.01 : 0.01)],
  ["t", "no threshold", () => act.threshold(null)],
  ["o", "objects, shown or not", () => act.objects(!state.objects)],
  ["b", "the next run beside this one, or none", nextBeside],
  ["+ − 0", "nearer, farther, all of the image", (key) => (key === "0" ? stage.look(null) : stage.zoomed(key === "-" ? 1 / 1.4 : 1.4))],
  ["a s d f", `verdict: ${VERDICTS.join(", ")}`, (key) => say(VERDICTS["asdf".indexOf(key)])],
  ["x", "no verdict", () => act.verdict("", side.note.value)],
  ["?", "this panel", openHelp],
];

async function begin() {
  try {
    return await (await fetched("index.json")).json();
  } catch (error) {
    complain(error.message);
    byId("title").textContent = "The runs cannot be read";
    throw error;
  }
}

function say(verdict) {
  const now = verdicts.of(image).verdict;
  act.verdict(now === verdict ? "" : verdict, side.note.value);
}

function chooseLayer(place) {
  const keys = layersOf(panes);
  if (place <= keys.length) act.layer(keys[place % keys.length]);
}

function moveThreshold(part) {
  if (!state.layer.startsWith("doubt:")) return;
  const [low, high] = panes[0].scale, now = state.threshold ?? low;
  const next = Math.min(high, now + part * (high - low));
  act.threshold(next <= low ? null : next);
}

function nextBeside() {
  const able = index.runs.map((run, at) => at).filter((at) => at !== state.run && index.runs[at].layers.length);
  act.runs(state.run, [...able, -1][able.indexOf(state.other) + 1]);
}

function openHelp() {
  byId("help-panel").showModal();
}

function go(chosen, newEntry = true) {
  state.image = table.names[chosen];
  writeAddress(newEntry);
  show();
}

/** Show the grid or the image that the state says. */
function show() {
  image = state.image ? table.names.indexOf(state.image) : -1;
  if (state.image && image < 0) complain(`${state.image}: is no image of these runs.`);
  const large = image >= 0;
  byId("grid-view").hidden = large;
  byId("image-view").hidden = !large;
  document.body.classList.toggle("large", large);
  document.title = large ? `${state.image}: doubtmap view` : "doubtmap view";
  if (large) return void look();
  sorted();
  grid.reveal(Math.max(0, grid.current));
}

function sorted() {
  order = table.order(state);
  grid.show(order, state.sort);
  byId("direction").disabled = !state.sort;
  const all = table.names.length, things = all === 1 ? "image" : "images";
  const kept = order.length === all ? "" : `${order.length.toLocaleString("en")} of `;
  byId("count").textContent = `${kept}${all.toLocaleString("en")} ${things}`;
}

let turn = 0;
async function look() {
  const mine = ++turn, now = image;
  const wanted = [state.run, state.other].filter((run) => run >= 0 && run < index.runs.length);
  if (!index.runs[wanted[0]]?.layers.length) wanted[0] = Math.max(0, index.runs.findIndex((run) => run.layers.length));
  if (panes.map((pane) => pane.run).join() !== wanted.join()) {
    panes = wanted.map((run) => new Pane(index, run));
    stage.hold(panes);
  }
  const keys = layersOf(panes);
  if (!keys.includes(state.layer)) state.layer = keys.find((key) => key.startsWith("doubt:")) ?? keys.at(-1);
  if (!order.length) order = table.order(state);
  let place = order.indexOf(now);
  if (place < 0) {
    order = [now, ...order];
    place = 0;
  }
  grid.current = place;
  side.show(now, place, order.length, panes);
  const results = await Promise.allSettled(panes.map((pane) => pane.load(now, state.layer)));
  if (mine !== turn) return;
  const failed = results.find((result) => result.status === "rejected");
  if (failed) complain(failed.reason.message);
  else if (results.every((result) => result.value)) complain("");
  for (const [at, pane] of panes.entries()) {
    const run = index.runs[pane.run];
    pane.caption.textContent = panes.length > 1 ? `${"AB"[at]}: ${run.folder}, ${run.title}` : "";
  }
  stage.place();
  paint();
  side.show(now, place, order.length, panes);
  document.body.dataset.shown = state.image;
  if (order[place + 1] !== undefined) readAhead(panes, order[place + 1]);
}

function paint(moving = false) {
  panes.forEach((pane, at) => pane.paint(panes[1 - at], moving));
  side.painted();
}

let waiting = 0, settling = 0;
function paintSoon() {
  writeAddress();
  clearTimeout(settling);
  settling = setTimeout(paint, 200);
  waiting ||= requestAnimationFrame(() => {
    waiting = 0;
    paint(true);
  });
}

function filterRow(filter, place) {
  const choices = table.choices(filter.title), text = table.isText(filter.title);
  const change = (more) => { Object.assign(filter, more); writeAddress(); sorted(); };
  const value = choices.length
    ? element("select", { "aria-label": "Value", change: (e) => change({ value: e.target.value }) },
        ...choices.map((choice) => element("option", { value: choice, text: choice || "none" })))
    : element("input", { type: text ? "search" : "number", step: "any", "aria-label": "Value", input: (e) => change({ value: e.target.value }) });
  value.value = filter.value;
  const signs = text ? (choices.length ? ["="] : ["~"]) : [">=", "<=", "="];
  if (!signs.includes(filter.sign)) filter.sign = signs[0];
  if (choices.length && !choices.includes(filter.value)) filter.value = value.value = choices[0];
  const sign = element("select", { "aria-label": "Comparison", change: (e) => change({ sign: e.target.value }) },
    ...signs.map((one) => element("option", { value: one, text: { ">=": "at least", "<=": "at most", "=": "is", "~": "contains" }[one] })));
  sign.value = filter.sign;
  const title = element("select", { "aria-label": "Column", change: (e) => { change({ title: e.target.value, value: "" }); filterRows(); } },
    ...table.titles.map((one) => element("option", { value: one, text: one })));
  title.value = filter.title;
  const away = () => { state.filters.splice(place, 1); writeAddress(); filterRows(); sorted(); };
  return element("div", { class: "filter" }, title, sign, value, element("button", { type: "button", text: "remove", click: away }));
}

function filterRows() {
  byId("filter-rows").replaceChildren(...state.filters.map(filterRow));
}

function fromAddress() {
  readAddress();
  byId("search").value = state.search;
  byId("sort").value = state.sort;
  sayDirection();
  filterRows();
  order = [];
  show();
}

function sayDirection() {
  byId("direction").textContent = state.down ? "descending" : "ascending";
  byId("direction").setAttribute("aria-pressed", String(!state.down));
}

function wire() {
  byId("title").textContent = index.runs.map((run) => run.title).join(" · ");
  byId("notes").replaceChildren(...index.runs.flatMap((run) => run.notes).map((text) => element("li", { text })));
  byId("sort").replaceChildren(
    element("option", { value: "", text: "as they came" }),
    ...table.titles.map((title) => element("option", { value: title, text: title })),
  );
  const change = (more) => { Object.assign(state, more); grid.current = 0; byId("grid").scrollTop = 0; writeAddress(); sorted(); };
  byId("search").addEventListener("input", (event) => change({ search: event.target.value }));
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("direction").addEventListener("click", () => { change({ down: !state.down }); sayDirection(); });
  byId("add-filter").addEventListener("click", () => {
    state.filters.push({ title: state.sort || table.titles[2] || "name", sign: ">=", value: "" });
    filterRows();
    change({});
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("export").addEventListener("click", () => verdicts.save().catch((error) => complain(error.message)));
  byId("help").addEventListener("click", openHelp);
  byId("keys").replaceChildren(
    ...KEYS.flatMap(([keys, text]) => [element("dt", {}, element("kbd", { text: keys })), element("dd", { text })]),
  );
  addEventListener("popstate", fromAddress);
  addEventListener("keydown", pressed);
}

const BY_KEY = new Map();
for (const [keys, , action] of KEYS)
  for (const key of keys === "1 … 9" ? "123456789" : keys.split(/ or | /))
    BY_KEY.set({ "→": "ArrowRight", "←": "ArrowLeft", Esc: "Escape", "−": "-" }[key] || key, action);

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help-panel").open) return;
  const typing = event.target.closest("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (typing && event.key !== "Escape") return;
  const moves = event.target.type === "range" && event.key.startsWith("Arrow");
  const meant = BY_KEY.get(event.key);
  if (!meant || moves || (image < 0 && event.key !== "?")) return;
  if (typing) typing.blur();
  else meant(event.key);
  event.preventDefault();
}

wire();
fromAddress();
document.body.dataset.ready = "yes";
