// What the reader says of images: kept by the server beside the run, else by this browser.
import { element, fetched } from "./elements.js";

export const VERDICTS = ["label wrong", "network wrong", "unknown", "fine"];
const NONE = { verdict: "", note: "" };
const FORMULA = /^[=+\-@\t\r\n]/;

export class Verdicts {
  constructor(index) {
    this.names = index.names;
    this.byServer = index.kept === "server";
    this.place = `doubtmap ${location.pathname}`;
    this.held = {};
  }

  async read() {
    if (this.byServer) this.held = await (await fetched("verdicts.json")).json();
    else this.held = JSON.parse(localStorage.getItem(this.place) || "{}");
  }

  of(image) {
    const name = this.names[image];
    return Object.hasOwn(this.held, name) ? this.held[name] : NONE;
  }

  async say(image, verdict, note) {
    if (this.byServer)
      await fetched("verdicts.json", {
        method: "POST", body: JSON.stringify({ image, verdict, note }),
      });
    if (verdict || note)
      this.held[this.names[image]] = { verdict, note, when: new Date().toISOString() };
    else delete this.held[this.names[image]];
    if (!this.byServer) localStorage.setItem(this.place, JSON.stringify(this.held));
  }

  /** As CSV; what a spreadsheet would take for a formula gets an apostrophe before it. */
  async save() {
    const blob = this.byServer
      ? await (await fetched("verdicts.csv")).blob()
      : new Blob([this.table()], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(blob), download: "verdicts.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  table() {
    const quoted = (text) => {
      const safe = FORMULA.test(text) ? `'${text}` : text;
      return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const rows = this.names
      .filter((name) => Object.hasOwn(this.held, name))
      .map((name) => [name, this.held[name].verdict, this.held[name].note, this.held[name].when]);
    return [["image", "verdict", "note", "when"], ...rows]
      .map((row) => row.map(quoted).join(",") + "\n").join("");
  }
}
