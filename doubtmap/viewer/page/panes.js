// One image, large: layers over it, of one run or of two side by side, moved and enlarged as one.
import { complain, digits, element } from "./elements.js";
import {
  countAbove, doubtOf, paintChanges, paintCodes, paintDoubt, paintStates, readMap, statesOf,
} from "./pixels.js";
import { state } from "./state.js";

const SVG = "http://www.w3.org/2000/svg", KEPT = 24, CLOSEST = 64;

/** Maps by their addresses, the last few of them. */
class Maps {
  constructor() {
    this.held = new Map();
  }

  get(address) {
    const found = this.held.get(address) || readMap(address);
    this.held.delete(address);
    this.held.set(address, found);
    found.catch(() => this.held.delete(address));
    if (this.held.size > KEPT) this.held.delete(this.held.keys().next().value);
    return found;
  }
}

const maps = new Maps();

/** What a run shows of an image: its picture, a layer, objects. */
export class Pane {
  constructor(index, run) {
    this.index = index;
    this.run = run;
    this.about = index.runs[run];
    this.photo = element("img", { alt: "", draggable: "false" });
    this.canvas = element("canvas");
    this.things = document.createElementNS(SVG, "svg");
    this.world = element("div", { class: "world" }, this.photo, this.canvas, this.things);
    this.caption = element("figcaption");
    this.box = element("div", { class: "window" }, this.world);
    this.figure = element("figure", { class: "pane" }, this.box, this.caption);
    this.held = {};
    this.size = [1, 1];
    this.objectRuns = this.about.objects ? [run] : [...index.runs.keys()].filter((at) => index.runs[at].objects);
  }

  has(image) {
    const { places } = this.about;
    return !places || places[image] >= 0;
  }

  address(image, key) {
    return `maps/${this.run}/${this.about.layers.findIndex((layer) => layer.key === key)}/${image}.bin`;
  }

  keys() {
    return this.about.layers.map((layer) => layer.key);
  }

  /** Keys of the maps that a layer is painted from. */
  needs(layer) {
    const there = this.keys(), labelled = there.includes("labels") && there.includes("classes");
    if (layer === "right") return labelled ? ["labels", "classes"] : [];
    if (layer === "changed") return there.filter((key) => key === "labels" || key === "classes");
    if (!there.includes(layer)) return [];
    return layer.startsWith("doubt:") && labelled ? [layer, "labels", "classes"] : [layer];
  }

  /** Read what a layer of an image needs; what was read of the image stays. */
  async load(image, layer) {
    if (this.image !== image) {
      Object.assign(this, { image, held: {}, states: null, counted: null });
      this.photo.src = `images/${image}.jpg`;
      this.photo.alt = this.index.names[image];
      this.canvas.width = this.canvas.height = 0;
      this.things.replaceChildren();
      await this.photo.decode().catch(() => this.explain(image));
      if (this.image !== image) return false;
      this.size = [this.photo.naturalWidth || 1, this.photo.naturalHeight || 1];
      for (const from of this.objectRuns) this.objects(from, image).then((found) => this.draw(from, found, image));
    }
    if (!this.has(image)) return true;
    const needed = this.needs(layer).filter((key) => !this.held[key]);
    const found = await Promise.all(needed.map((key) => maps.get(this.address(image, key))));
    if (this.image !== image) return false;
    needed.forEach((key, at) => (this.held[key] = found[at]));
    const { labels, classes } = this.held;
    if (labels && classes && !this.states) this.states = statesOf(labels, classes);
    return true;
  }

  async explain(image) {
    const answer = await fetch(`images/${image}.jpg`).catch(() => null);
    if (answer && !answer.ok) complain((await answer.text()).slice(0, 400));
  }

  async objects(from, image) {
    const answer = await fetch(`objects/${from}/${image}.json`);
    return answer.ok ? answer.json() : { size: null, objects: [] };
  }

  /** Objects have the coordinates of the whole image, of which the picture may be an overview. */
  draw(from, { size, objects }, image) {
    if (this.image !== image) return;
    const whose = this.objectRuns.length > 1 ? `${String.fromCharCode(65 + from)}: ` : "";
    this.things.setAttribute("viewBox", `0 0 ${(size || this.size).join(" ")}`);
    for (const each of objects) {
      const drawn = document.createElementNS(SVG, "path");
      const paths = each.lines.map((line) => `M${line.slice(0, 2)}L${line.slice(2)}Z`);
      drawn.setAttribute("d", paths.join(""));
      if (from !== this.objectRuns[0]) drawn.classList.add("further");
      const title = document.createElementNS(SVG, "title");
      const labelled = each.labelled_class ? ` labelled ${each.labelled_class}` : "";
      title.textContent = `${whose}${each.predicted_class}${labelled}, ${each.area} pixels, score ${digits(each.score)}`;
      drawn.append(title);
      this.things.append(drawn);
    }
  }

  get scale() {
    const layer = this.about.layers.find((one) => one.key === state.layer);
    const map = this.held[state.layer];
    return (layer && layer.scale) || (map && [map.low, map.high]) || [0, 1];
  }

  /** How many pixels of the layer fall on one of the screen. */
  get crowd() {
    const map = this.held[state.layer];
    if (!map || !this.shown) return 1;
    const across = this.shown.scale * this.size[0] * devicePixelRatio;
    return Math.max(1, Math.floor(map.width / across));
  }

  /** Paint the layer that is looked at; `other` is the pane beside, where there is one. While a
      slider moves, only as many pixels of doubt as the screen has. */
  paint(other, moving = false) {
    const layer = state.layer, map = this.held[layer === "changed" ? "classes" : layer];
    const beside = other && other.held.classes;
    const ready = layer === "right" ? this.states : layer === "changed" ? map && beside : map;
    this.canvas.hidden = !ready;
    this.things.style.display = state.objects ? "" : "none";
    if (!ready) return;
    const doubt = layer.startsWith("doubt:"), step = doubt && moving ? this.crowd : 1;
    const whole = layer === "right" ? this.held.labels : map;
    const width = Math.ceil(whole.width / step), height = Math.ceil(whole.height / step);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.context = this.canvas.getContext("2d");
      this.data = this.context.createImageData(width, height);
      this.out = new Uint32Array(this.data.data.buffer);
    }
    this.canvas.style.opacity = doubt ? 1 : state.opacity;
    const { scale, index: { ramp } } = this, { threshold, opacity } = state;
    if (doubt) paintDoubt(this.out, map, { scale, threshold, opacity, ramp, step });
    else if (layer === "right") paintStates(this.out, this.states);
    else if (layer === "changed") {
      const both = [this, other].sort((one, two) => one.run - two.run);
      paintChanges(this.out, ...both.map((pane) => ({ ...pane.held, names: pane.about.classes })));
    } else paintCodes(this.out, map, this.about.colours, this.index.codes);
    this.context.putImageData(this.data, 0, 0);
  }

  /** Counts of the pixels of the layer above levels, by state. */
  counts() {
    const map = this.held[state.layer];
    if (!map || map.codes) return null;
    if (!this.counted || this.counted.map !== map)
      this.counted = { map, above: countAbove(map, this.states) };
    return this.counted;
  }

  /** What is known of a pixel of the image, in words. */
  values(x, y) {
    const words = [];
    for (const [key, map] of Object.entries(this.held)) {
      const column = Math.floor((x / this.size[0]) * map.width);
      const row = Math.floor((y / this.size[1]) * map.height);
      const pixel = map.pixels[row * map.width + column];
      const name = key.replace(/^doubt:/, "").replace("classes", "prediction").replace("labels", "label");
      if (map.gaps && pixel === 0) words.push(`${name}: no data`);
      else if (!map.codes) words.push(`${name} ${doubtOf(map, pixel).toPrecision(4)}`);
      else if (pixel < 0) words.push(`${name} ${this.index.codes[pixel][0]}`);
      else words.push(`${name} ${this.about.classes[pixel] ?? pixel}`);
    }
    return words.join(" · ");
  }
}

/** The panes of an image, and where they are looked at. */
export class Stage {
  constructor(box, changed) {
    this.box = box;
    this.changed = changed;
    this.panes = [];
    this.fingers = new Map();
    this.readout = element("p", { id: "readout", "aria-live": "off" });
    new ResizeObserver(() => this.place()).observe(box);
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    box.addEventListener("pointerdown", (event) => this.down(event));
    box.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"])
      box.addEventListener(kind, (event) => this.fingers.delete(event.pointerId));
    box.addEventListener("pointerleave", () => (this.readout.textContent = ""));
    box.addEventListener("dblclick", () => this.look(null));
  }

  hold(panes) {
    this.panes = panes;
    this.box.replaceChildren(...panes.map((pane) => pane.figure), this.readout);
    this.box.classList.toggle("two", panes.length > 1);
  }

  /** Fit, or look at a place, in shares of the image, enlarged so many times. */
  look(at) {
    state.at = at;
    this.place();
    this.changed();
  }

  zoomed(times, x = 0.5, y = 0.5) {
    const [cx, cy, old] = state.at || [0.5, 0.5, 1];
    const zoom = Math.min(CLOSEST, Math.max(1, old * times));
    const share = 1 - old / zoom;
    this.look(zoom === 1 ? null : [cx + (x - cx) * share, cy + (y - cy) * share, zoom]);
  }

  place() {
    for (const pane of this.panes) {
      const { clientWidth: wide, clientHeight: high } = pane.box;
      const [width, height] = pane.size, [cx, cy, zoom] = state.at || [0.5, 0.5, 1];
      const scale = Math.min(wide / width, high / height) * zoom;
      pane.shown = { scale, left: wide / 2 - cx * width * scale, top: high / 2 - cy * height * scale };
      pane.world.style.width = `${width}px`;
      pane.world.style.height = `${height}px`;
      pane.world.style.transform = `translate(${pane.shown.left}px, ${pane.shown.top}px) scale(${scale})`;
      pane.world.style.setProperty("--scale", scale); // outlines are as thin whatever the scale
      pane.world.classList.toggle("near", scale > 2);
    }
  }

  /** The pane under an event, and where in its image, in pixels. */
  under(event) {
    for (const pane of this.panes) {
      const around = pane.box.getBoundingClientRect();
      if (event.clientX < around.left || event.clientX > around.right || !pane.shown) continue;
      if (event.clientY < around.top || event.clientY > around.bottom) continue;
      const x = (event.clientX - around.left - pane.shown.left) / pane.shown.scale;
      const y = (event.clientY - around.top - pane.shown.top) / pane.shown.scale;
      return { pane, x, y };
    }
    return null;
  }

  wheel(event) {
    const found = this.under(event);
    if (!found) return;
    event.preventDefault();
    const [width, height] = found.pane.size;
    this.zoomed(Math.exp(-event.deltaY / 400), found.x / width, found.y / height);
  }

  down(event) {
    if (event.target.closest("button, input, select")) return;
    this.fingers.set(event.pointerId, event);
    if (event.pointerType !== "mouse" || event.button === 0) this.box.setPointerCapture(event.pointerId);
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (before) this.drag(before, event);
    this.tell(event);
  }

  drag(before, event) {
    const others = [...this.fingers.entries()].filter(([id]) => id !== event.pointerId);
    this.fingers.set(event.pointerId, event);
    const pane = this.panes[0];
    if (!pane || !pane.shown) return;
    if (others.length) {
      const [, other] = others[0], apart = (e) => Math.hypot(e.clientX - other.clientX, e.clientY - other.clientY);
      const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      const found = this.under(middle);
      if (found && apart(before))
        this.zoomed(apart(event) / apart(before), found.x / found.pane.size[0], found.y / found.pane.size[1]);
    } else if (state.at) {
      const [cx, cy, zoom] = state.at, [width, height] = pane.size;
      this.look([
        cx - (event.clientX - before.clientX) / (width * pane.shown.scale),
        cy - (event.clientY - before.clientY) / (height * pane.shown.scale), zoom,
      ]);
    }
  }

  tell(event) {
    const found = this.under(event);
    if (!found) return;
    const { pane, x, y } = found;
    const inside = x >= 0 && y >= 0 && x < pane.size[0] && y < pane.size[1];
    if (!inside) return void (this.readout.textContent = "");
    const told = this.panes.map((one, at) => (this.panes.length > 1 ? `${"AB"[at]}: ` : "") + one.values(x, y));
    this.readout.textContent = `${Math.floor(x)}, ${Math.floor(y)} · ${told.join(" | ")}`;
  }
}

/** Read ahead what the next image will need. */
export function readAhead(panes, image) {
  new Image().src = `images/${image}.jpg`;
  for (const pane of panes)
    if (pane.has(image))
      for (const key of pane.needs(state.layer)) maps.get(pane.address(image, key)).catch(() => null);
}
