// Maps as typed arrays, and how they are painted. A picture of two megapixels takes milliseconds.
import { fetched } from "./elements.js";

const LEVELS = 65536, HEADER = 24, GZIP = 0x8b1f;
export const RIGHT = 0, WRONG = 1, UNKNOWN = 2, NOTHING = 3, KNOWN = 4;
const KINDS = 5, CODE_UNKNOWN = -1, CODE_KNOWN = -3;
export const STATES = {
  right: "#3d8fd1", wrong: "#c8248c", unknown: "#ff5c00", void: "#181818", known: "#cdcdcd",
};
export const CHANGES = {
  "right in B alone": "#2aa876", "right in A alone": "#c8248c", "another class": "#e0b53a",
};

/** Read a map: what it is, its size, and 16 bits for each pixel. */
export async function readMap(address) {
  let buffer = await (await fetched(address)).arrayBuffer();
  if (new DataView(buffer).getUint16(0, true) === GZIP) {
    const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
    buffer = await new Response(stream).arrayBuffer();
  }
  const head = new DataView(buffer);
  const kind = head.getUint32(4, true), codes = kind === 1;
  return {
    codes,
    gaps: kind === 2, // pixels of 0 have no data
    width: head.getUint32(8, true),
    height: head.getUint32(12, true),
    low: head.getFloat32(16, true),
    high: head.getFloat32(20, true),
    pixels: codes ? new Int16Array(buffer, HEADER) : new Uint16Array(buffer, HEADER),
  };
}

export const doubtOf = (map, pixel) => map.low + (pixel / (LEVELS - 1)) * (map.high - map.low);

/** The least pixel value that reaches a threshold. */
export function levelOf(map, threshold) {
  if (threshold === null || threshold <= map.low) return 0;
  if (threshold > map.high) return LEVELS;
  return Math.ceil(((threshold - map.low) / (map.high - map.low)) * (LEVELS - 1) - 1e-6);
}

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function packed(hex, alpha = 255) {
  const [red, green, blue] = channels(hex);
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

const table = new Uint32Array(LEVELS);

/** Paint doubt, each `step`-th pixel of each `step`-th row: the greater it is, the less of the
    image shows; below the threshold all of it does. */
export function paintDoubt(out, map, { scale, threshold, opacity, ramp, step }) {
  const [low, high] = scale || [map.low, map.high];
  const stretch = high > low ? 1 / (high - low) : 0;
  const level = levelOf(map, threshold);
  const most = 255 * Math.min(1, 2 * opacity), power = 2 * (1 - opacity);
  const colours = ramp.map((hex, place) =>
    packed(hex, Math.round(most * (place / (ramp.length - 1)) ** power)),
  );
  if (threshold !== null && opacity > 0) // what is above a threshold can be told from what is not
    ramp.forEach((hex, place) => { colours[place] = packed(hex, Math.max(colours[place] >>> 24, most / 2)); });
  table.fill(0, 0, Math.min(level, LEVELS));
  const first = map.gaps ? Math.max(level, 1) : level;
  if (map.gaps) table[0] = 0;
  for (let pixel = first; pixel < LEVELS; pixel++) {
    const place = Math.round((ramp.length - 1) * (doubtOf(map, pixel) - low) * stretch);
    table[pixel] = colours[place < 0 ? 0 : place >= ramp.length ? ramp.length - 1 : place];
  }
  const { pixels, width, height } = map;
  for (let row = 0, to = 0; row < height; row += step) {
    const end = (row + 1) * width;
    for (let at = row * width; at < end; at += step) out[to++] = table[pixels[at]];
  }
}

/** Paint classes and codes in their colours. */
export function paintCodes(out, map, colours, codes) {
  const { pixels } = map;
  const shades = colours.map((hex) => packed(hex));
  const others = new Map(Object.entries(codes).map(([code, [, hex]]) => [+code, packed(hex)]));
  for (let at = 0; at < out.length; at++) {
    const code = pixels[at];
    out[at] = code >= 0 ? shades[code] : others.get(code);
  }
}

/** Of each pixel, whether the network is right: `RIGHT`, `WRONG`, and of no class. */
export function statesOf(labels, classes) {
  const found = new Uint8Array(labels.pixels.length);
  for (let at = 0; at < found.length; at++) {
    const label = labels.pixels[at];
    if (label >= 0) found[at] = label === classes.pixels[at] ? RIGHT : WRONG;
    else if (label === CODE_UNKNOWN) found[at] = UNKNOWN;
    else found[at] = label === CODE_KNOWN ? KNOWN : NOTHING;
  }
  return found;
}

export function paintStates(out, states) {
  const shades = Object.values(STATES).map((hex) => packed(hex));
  for (let at = 0; at < out.length; at++) out[at] = shades[states[at]];
}

/** The names of classes as numbers that two lists of them share, as names meet elsewhere. */
function shared(first, second) {
  const bare = (name) => name.toLowerCase().replace(/[-_ ]/g, "");
  const numbers = new Map();
  return [first, second].map((names) =>
    names.map((name) => {
      if (!numbers.has(bare(name))) numbers.set(bare(name), numbers.size);
      return numbers.get(bare(name));
    }),
  );
}

/** Where two runs differ, and for whom that is better; without labels, where they differ. Each run
    is `{ classes, labels, names }`; its numbers of classes are its own, so that they meet by name. */
export function paintChanges(out, first, second) {
  const [better, worse, other] = Object.values(CHANGES).map((hex) => packed(hex));
  const [ofFirst, ofSecond] = shared(first.names, second.names);
  const number = (map, numbers, at) => (map ? numbers[map.pixels[at]] ?? map.pixels[at] : null);
  for (let at = 0; at < out.length; at++) {
    const a = number(first.classes, ofFirst, at), b = number(second.classes, ofSecond, at);
    const labelOfA = number(first.labels, ofFirst, at), labelOfB = number(second.labels, ofSecond, at);
    if (a === b) out[at] = 0;
    else if (b === (labelOfB ?? labelOfA)) out[at] = better;
    else if (a === (labelOfA ?? labelOfB)) out[at] = worse;
    else out[at] = other;
  }
}

/** How many pixels of each state reach a level or more: `counts[state * (LEVELS + 1) + level]`. */
export function countAbove(map, states) {
  const wide = LEVELS + 1, counts = new Uint32Array(KINDS * wide);
  const { pixels, gaps } = map;
  for (let at = 0; at < pixels.length; at++)
    if (pixels[at] || !gaps) counts[(states ? states[at] : NOTHING) * wide + pixels[at]]++;
  for (let state = 0; state < KINDS; state++)
    for (let level = LEVELS - 1; level >= 0; level--)
      counts[state * wide + level] += counts[state * wide + level + 1];
  return (state, level) => counts[state * wide + level];
}

/** Precision and recall of the run at a threshold, between the points that it wrote down. */
export function onCurve(curve, threshold) {
  const { threshold: marks, recall, precision } = curve;
  let low = 0, high = marks.length; // descending: find the first mark below the threshold
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[middle] >= threshold) low = middle + 1;
    else high = middle;
  }
  if (low === 0) return { recall: 0, precision: null };
  if (low === marks.length) return { recall: recall[low - 1], precision: precision[low - 1] };
  const part = (marks[low - 1] - threshold) / (marks[low - 1] - marks[low]);
  const between = (values) => values[low - 1] + part * (values[low] - values[low - 1]);
  return { recall: between(recall), precision: between(precision) };
}
