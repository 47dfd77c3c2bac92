// The table of images: what it is sorted and filtered by.

export class Columns {
  constructor(index, verdicts) {
    this.names = index.names;
    this.lower = index.names.map((name) => name.toLowerCase());
    this.byTitle = new Map(index.columns.map((column) => [column.title, column.values]));
    this.verdicts = verdicts;
  }

  get titles() {
    return ["name", "verdict", ...this.byTitle.keys()];
  }

  value(title, image) {
    if (title === "name") return this.names[image];
    if (title === "verdict") return this.verdicts.of(image).verdict || null;
    const values = this.byTitle.get(title);
    return values ? values[image] : null;
  }

  isText(title) {
    if (title === "name" || title === "verdict") return true;
    return (this.byTitle.get(title) || []).some((value) => typeof value === "string");
  }

  /** The values that a column of texts has, where they are few. */
  choices(title) {
    if (title === "verdict") return ["", "label wrong", "network wrong", "unknown", "fine"];
    if (title === "name" || !this.isText(title)) return [];
    const found = new Set(this.byTitle.get(title));
    return found.size && found.size <= 300 ? [...found].map((v) => v ?? "").sort() : [];
  }

  passes(filter, image) {
    const value = this.value(filter.title, image);
    if (filter.sign === "~") return String(value ?? "").toLowerCase().includes(filter.value.toLowerCase());
    if (this.isText(filter.title)) return String(value ?? "") === filter.value;
    if (filter.value === "") return true;
    if (value === null || value === undefined) return false;
    const limit = Number(filter.value);
    if (filter.sign === ">=") return value >= limit;
    return filter.sign === "<=" ? value <= limit : value === limit;
  }

  /** Places of the images that pass, in order; what has no value comes last. */
  order({ sort, down, search, filters }) {
    const wanted = search.toLowerCase();
    const kept = [];
    for (let image = 0; image < this.names.length; image++)
      if (
        (!wanted || this.lower[image].includes(wanted)) &&
        filters.every((filter) => this.passes(filter, image))
      )
        kept.push(image);
    if (!sort) return kept;
    const keys = kept.map((image) => this.value(sort, image) ?? null);
    const text = this.isText(sort);
    const way = down ? -1 : 1;
    const places = kept.map((_, place) => place);
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    places.sort((a, b) => {
      const x = keys[a], y = keys[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return way * (text ? compare(x, y) : x - y) || a - b;
    });
    return places.map((place) => kept[place]);
  }
}
