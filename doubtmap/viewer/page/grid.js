// The grid: of however many images, only the tiles in sight exist.
import { byId, digits, element } from "./elements.js";

const GAP = 10, CAPTION = 24, NARROWEST = 150;

export class Grid {
  constructor(table, verdicts, open) {
    this.table = table;
    this.verdicts = verdicts;
    this.open = open;
    this.box = byId("grid");
    this.sheet = byId("sheet");
    this.tiles = new Map();
    this.order = [];
    this.title = "";
    this.current = 0;
    this.box.addEventListener("scroll", () => this.soon(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.measure()).observe(this.box);
  }

  show(order, title) {
    this.order = order;
    this.title = title;
    for (const tile of this.tiles.values()) tile.remove();
    this.tiles.clear();
    this.current = Math.min(this.current, Math.max(0, order.length - 1));
    this.measure();
  }

  measure() {
    const width = this.box.clientWidth;
    if (!width) return;
    this.across = Math.max(2, Math.floor((width - GAP) / (NARROWEST + 60)));
    this.wide = (width - GAP) / this.across - GAP;
    this.high = Math.round(this.wide * 0.72) + CAPTION;
    this.sheet.style.height = `${Math.ceil(this.order.length / this.across) * (this.high + GAP) + GAP}px`;
    for (const tile of this.tiles.values()) this.put(tile);
    this.soon();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const step = this.high + GAP, top = this.box.scrollTop;
    const first = Math.max(0, Math.floor(top / step) - 1) * this.across;
    const last = Math.min(
      this.order.length, (Math.ceil((top + this.box.clientHeight) / step) + 1) * this.across,
    );
    for (const [place, tile] of this.tiles)
      if (place < first || place >= last) {
        tile.querySelector("img").removeAttribute("src"); // no longer asked for
        tile.remove();
        this.tiles.delete(place);
      }
    for (let place = first; place < last; place++)
      if (!this.tiles.has(place)) this.tiles.set(place, this.made(place));
    this.mark();
  }

  made(place) {
    const image = this.order[place], name = this.table.names[image];
    const said = this.verdicts.of(image).verdict;
    const value = this.title && this.title !== "name" ? this.table.value(this.title, image) : null;
    const tile = element(
      "div",
      { class: "tile", role: "option", title: name, click: () => this.open(image, place) },
      element("img", { alt: "", src: `thumbs/${image}.jpg`, decoding: "async", error: (e) => e.target.classList.add("lost") }),
      element(
        "p", {},
        element("span", { class: "name", text: name }),
        element("span", { class: "figure", text: value === null ? "" : digits(value) }),
      ),
      said ? element("span", { class: "said", text: said }) : "",
    );
    tile.place = place;
    this.put(tile);
    this.sheet.append(tile);
    return tile;
  }

  put(tile) {
    const row = Math.floor(tile.place / this.across), column = tile.place % this.across;
    tile.style.width = `${this.wide}px`;
    tile.style.height = `${this.high}px`;
    tile.style.transform = `translate(${GAP + column * (this.wide + GAP)}px, ${GAP + row * (this.high + GAP)}px)`;
  }

  mark() {
    for (const [place, tile] of this.tiles)
      tile.setAttribute("aria-selected", place === this.current);
  }

  /** Bring a place of the order into sight. */
  reveal(place) {
    this.current = Math.max(0, Math.min(this.order.length - 1, place));
    const step = this.high + GAP, top = Math.floor(this.current / this.across) * step;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + step + GAP > this.box.scrollTop + this.box.clientHeight)
      this.box.scrollTop = top + step + GAP - this.box.clientHeight;
    this.mark();
    this.soon();
  }

  key(event) {
    const page = this.across * Math.max(1, Math.floor(this.box.clientHeight / (this.high + GAP)));
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.across, ArrowUp: -this.across,
      PageDown: page, PageUp: -page, Home: -this.order.length, End: this.order.length,
    };
    if (event.key in steps) this.reveal(this.current + steps[event.key]);
    else if (event.key === "Enter" && this.order.length)
      this.open(this.order[this.current], this.current);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
