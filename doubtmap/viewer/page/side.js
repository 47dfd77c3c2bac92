// What stands beside an image: layers, opacity, the threshold and what it finds, verdict, figures.
import { complain, digits, element, percent } from "./elements.js";
import {
  CHANGES, KNOWN, NOTHING, RIGHT, STATES, UNKNOWN, WRONG, levelOf, onCurve,
} from "./pixels.js";
import { state } from "./state.js";
import { VERDICTS } from "./verdicts.js";

const STEPS = 1000;
const NAMES = {
  "": "image", labels: "labels", classes: "prediction", right: "right or wrong", changed: "what changed",
};
export const layerName = (key) => NAMES[key] ?? key.replace(/^doubt:/, "doubt: ");

/** The layers that there are for panes, in the order of their keys 1 to 9. */
export function layersOf(panes) {
  const found = [""];
  const keys = panes[0].keys();
  found.push(...keys.filter((key) => !key.startsWith("doubt:")));
  if (keys.includes("labels") && keys.includes("classes")) found.push("right");
  if (panes.length > 1 && panes.every((pane) => pane.keys().includes("classes"))) found.push("changed");
  return [...found, ...keys.filter((key) => key.startsWith("doubt:"))];
}

export class Side {
  constructor(box, { table, verdicts, index, act }) {
    Object.assign(this, { box, table, verdicts, index, act });
    const slider = (id, most, input) =>
      element("input", { id, type: "range", min: 0, max: most, step: 1, input });
    this.name = element("h2", {});
    this.position = element("span", { class: "position" });
    this.layers = element("div", { class: "layers", role: "radiogroup", "aria-label": "Layer" });
    this.opacity = slider("opacity", 100, () => act.opacity(this.opacity.value / 100));
    this.threshold = slider("threshold", STEPS, () => this.slid());
    this.limit = element("output", { for: "threshold" });
    this.any = element("button", { type: "button", text: "all", click: () => act.threshold(null) });
    this.above = element("dl", { id: "above", "aria-live": "off" });
    this.objects = element("input", { type: "checkbox", change: () => act.objects(this.objects.checked) });
    this.objectsRow = element("label", { class: "row" }, this.objects, " objects");
    this.sliders = element(
      "div", { class: "sliders" },
      element("label", { for: "opacity", text: "Opacity" }), this.opacity, element("span"),
      element("label", { for: "threshold", text: "Threshold" }), this.threshold, element("span", {}, this.limit, " ", this.any),
    );
    this.run = element("select", { change: () => act.runs(+this.run.value, state.other) });
    this.other = element("select", { change: () => act.runs(state.run, +this.other.value) });
    this.runs = element(
      "div", { class: "runs" },
      element("label", {}, "Run ", this.run), element("label", {}, "beside it ", this.other),
    );
    this.coloured = element("h3", { text: "Colours" });
    this.legend = element("ul", { class: "legend", "aria-label": "Colours" });
    this.verdict = element("div", { class: "verdicts", role: "group", "aria-label": "Verdict" });
    this.note = element("input", {
      type: "text", maxlength: 2000, placeholder: "note", "aria-label": "Note",
      change: () => act.verdict(this.verdicts.of(this.image).verdict, this.note.value),
    });
    this.figures = element("tbody");
    this.layout();
    this.choices();
  }

  layout() {
    const { act } = this;
    const button = (text, label, click) => element("button", { type: "button", text, "aria-label": label, click });
    this.box.replaceChildren(
      element(
        "div", { class: "way" },
        button("‹ grid", "Back to the grid", act.grid), this.position,
        button("‹", "Previous image", () => act.step(-1)), button("›", "Next image", () => act.step(1)),
      ),
      this.name, this.layers, this.sliders, this.objectsRow, this.above, this.runs,
      element("h3", { text: "Verdict" }), this.verdict, this.note,
      this.coloured, this.legend,
      element("h3", { text: "Figures of this image" }), element("table", {}, this.figures),
    );
  }

  choices() {
    const { runs } = this.index;
    const able = runs.map((run, at) => [run, at]).filter(([run]) => run.layers.length);
    const text = ([run, at]) => `${"ABCDEFGH"[at]}: ${run.folder}, ${run.title}`;
    for (const [box, first] of [[this.run, []], [this.other, [["nothing", -1]]]])
      box.replaceChildren(
        ...first.map(([name, value]) => element("option", { value, text: name })),
        ...able.map((one) => element("option", { value: one[1], text: text(one) })),
      );
    this.runs.hidden = able.length < 2;
  }

  /** A new image, other panes, or another layer. */
  show(image, place, count, panes) {
    Object.assign(this, { image, panes });
    this.name.textContent = this.table.names[image];
    this.position.textContent = `${place + 1} of ${count}`;
    this.layers.replaceChildren(...layersOf(panes).map((key, at) => this.choice(key, at)));
    this.run.value = state.run;
    this.other.value = state.other;
    this.objectsRow.hidden = !panes.some((pane) => pane.objectRuns.length);
    this.judged();
    this.figures.replaceChildren(
      ...this.table.titles
        .filter((title) => title !== "name" && title !== "verdict")
        .map((title) => [title, this.table.value(title, image)])
        .filter(([, value]) => value !== null && value !== undefined)
        .map(([title, value]) => element("tr", {}, element("th", { scope: "row", text: title }), element("td", { text: digits(value) }))),
    );
    this.painted();
  }

  choice(key, at) {
    return element(
      "button",
      { type: "button", role: "radio", "aria-checked": String(key === state.layer), click: () => this.act.layer(key) },
      layerName(key), at < 9 ? element("kbd", { text: at + 1 }) : "",
    );
  }

  judged() {
    const said = this.verdicts.of(this.image);
    this.verdict.replaceChildren(
      ...VERDICTS.map((verdict) =>
        element("button", {
          type: "button", text: verdict, "aria-pressed": String(said.verdict === verdict),
          click: () => this.act.verdict(said.verdict === verdict ? "" : verdict, this.note.value),
        }),
      ),
    );
    if (document.activeElement !== this.note) this.note.value = said.note;
  }

  slid() {
    const [low, high] = this.panes[0].scale, part = this.threshold.value / STEPS;
    this.act.threshold(part === 0 ? null : low + part * (high - low));
  }

  /** Sliders, colours and counts, after a layer was painted. */
  painted() {
    const doubt = state.layer.startsWith("doubt:"), [low, high] = this.panes[0].scale;
    const at = state.threshold === null ? 0 : (STEPS * (state.threshold - low)) / (high - low || 1);
    this.opacity.value = 100 * state.opacity;
    this.opacity.disabled = state.layer === "";
    this.threshold.disabled = this.any.disabled = !doubt;
    if (document.activeElement !== this.threshold || !doubt) this.threshold.value = at;
    this.threshold.setAttribute("aria-valuetext", state.threshold === null ? "all" : digits(state.threshold));
    this.limit.textContent = !doubt ? "" : state.threshold === null ? "" : `≥ ${state.threshold.toPrecision(3)}`;
    this.any.hidden = !doubt || state.threshold === null;
    this.objects.checked = state.objects;
    this.above.replaceChildren(...(doubt ? this.panes.flatMap((pane, place) => this.told(pane, place)) : []));
    const shown = JSON.stringify([state.layer, this.image, low, high, ...this.panes.map((pane) => pane.run)]);
    if (shown !== this.legendOf) this.colours(low, high);
    this.legendOf = shown;
  }

  told(pane, place) {
    const counts = pane.counts(), rows = [];
    const who = this.panes.length > 1 ? `${"AB"[place]}, ` : "";
    const row = (name, text) => rows.push(element("dt", { text: who + name }), element("dd", { text }));
    if (counts) {
      const level = levelOf(counts.map, state.threshold);
      const above = (kind) => counts.above(kind, level), all = (kind) => counts.above(kind, 0);
      const kinds = [RIGHT, WRONG, UNKNOWN, NOTHING, KNOWN];
      const total = (of) => kinds.reduce((sum, kind) => sum + of(kind), 0);
      row("of this image's pixels", `${percent(total(above) / total(all))} reach it`);
      const classed = above(RIGHT) + above(WRONG), counted = classed + above(UNKNOWN) + above(KNOWN);
      if (all(WRONG)) row("wrong ones here", this.pair(above(WRONG) / (classed || NaN), above(WRONG) / all(WRONG)));
      if (all(UNKNOWN)) row("unknown ones here", this.pair(above(UNKNOWN) / (counted || NaN), above(UNKNOWN) / all(UNKNOWN)));
    }
    const layer = pane.about.layers.find((one) => one.key === state.layer);
    for (const [kind, curve] of Object.entries(layer ? layer.thresholds : {})) {
      const at = onCurve(curve, state.threshold ?? -Infinity);
      row(`${kind} ones of the run`, this.pair(at.precision, at.recall));
    }
    return rows;
  }

  pair(precision, recall) {
    const first = Number.isFinite(precision) ? `precision ${precision.toFixed(3)}` : "no precision";
    return `${first}, recall ${recall.toFixed(3)}`;
  }

  colours(low, high) {
    const item = (name, colour) => element("li", {}, element("span", { class: "swatch", colour }), name);
    const { layer } = state;
    if (layer === "right") this.legend.replaceChildren(...Object.entries(STATES).map((one) => item(...one)));
    else if (layer === "changed") this.legend.replaceChildren(...Object.entries(CHANGES).map((one) => item(...one)));
    else if (layer.startsWith("doubt:")) this.legend.replaceChildren(this.bar(low, high));
    else if (layer) {
      const codes = layer === "labels" ? Object.values(this.index.codes) : [];
      this.legend.replaceChildren(...this.classes().map((one) => item(...one)), ...codes.map((one) => item(...one)));
    } else this.legend.replaceChildren();
    this.coloured.hidden = !layer;
  }

  /** Classes and their colours; those that the second run alone has say so. */
  classes() {
    const [first, second = []] = this.panes.map(({ about }) => about.classes.map((name, at) => [name, about.colours[at]]));
    const own = new Set(first.map(String));
    return [...first, ...second.filter((one) => !own.has(String(one))).map(([name, colour]) => [`${name} (B)`, colour])];
  }

  bar(low, high) {
    const strip = element("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const context = strip.getContext("2d");
    this.index.ramp.forEach((hex, at) => {
      context.fillStyle = hex;
      context.fillRect((at * 256) / this.index.ramp.length, 0, 2, 1);
    });
    return element("li", { class: "scale" }, digits(low), strip, digits(high));
  }
}

/** Say a verdict and show it, or why it could not be kept. */
export async function judge(verdicts, side, verdict, note) {
  try {
    await verdicts.say(side.image, verdict, note);
    complain("");
  } catch (error) {
    complain(error.message);
  }
  side.judged();
}
