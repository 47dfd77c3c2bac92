// What is looked at, in the address of the page: a link to every view. The layer "" is the image
// alone; null is none chosen yet, which shows the first doubt.

const EMPTY = {
  image: "", layer: null, opacity: 0.75, threshold: null, objects: true, run: 0, other: -1,
  sort: "", down: true, search: "", filters: [], at: null,
};
export const state = { ...EMPTY };
const SIGN = /^(.*?)(>=|<=|=|~)([^]*)$/;

export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, EMPTY, { filters: [] });
  for (const name of ["image", "layer", "sort", "search"])
    if (given.has(name)) state[name] = given.get(name);
  for (const name of ["opacity", "threshold", "run", "other"]) {
    const value = parseFloat(given.get(name));
    if (Number.isFinite(value)) state[name] = value;
  }
  state.opacity = Math.min(1, Math.max(0, state.opacity));
  if (given.has("objects")) state.objects = given.get("objects") !== "0";
  if (given.has("down")) state.down = given.get("down") !== "0";
  for (const text of given.getAll("where")) {
    const found = SIGN.exec(text);
    if (found) state.filters.push({ title: found[1], sign: found[2], value: found[3] });
  }
  const at = (given.get("at") || "").split(",").map(Number);
  state.at = at.length === 3 && at.every(Number.isFinite) ? at : null;
}

export function address() {
  const held = new URLSearchParams();
  const put = (name, value, usual) => value !== usual && held.set(name, value);
  for (const name of ["image", "sort", "search"]) put(name, state[name], "");
  put("layer", state.layer, null);
  put("run", state.run, 0);
  put("other", state.other, -1);
  put("opacity", +state.opacity.toFixed(2), EMPTY.opacity);
  if (state.threshold !== null) held.set("threshold", +state.threshold.toPrecision(5));
  if (!state.objects) held.set("objects", "0");
  if (!state.down) held.set("down", "0");
  for (const { title, sign, value } of state.filters) held.append("where", title + sign + value);
  if (state.at) held.set("at", state.at.map((number) => +number.toPrecision(5)).join(","));
  return "#" + held;
}

let waiting = 0;
/** Write the address: a new entry of the history, or, soon, in place of the last. */
export function writeAddress(newEntry = false) {
  clearTimeout(waiting);
  if (newEntry) history.pushState(null, "", address());
  else waiting = setTimeout(() => history.replaceState(null, "", address()), 150);
}
