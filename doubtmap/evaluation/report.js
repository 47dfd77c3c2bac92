"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = now === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.sort;
      [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (head.dataset.text ? x.localeCompare(y) : x - y);
      }).forEach((row) => body.append(row));
    });
  });
}
for (const table of document.querySelectorAll("table.filtered")) {
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "filter by name";
  box.setAttribute("aria-label", "Filter the table by name");
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const row of table.tBodies[0].rows)
      row.hidden = !(row.dataset.filter || row.cells[0].dataset.sort).toLowerCase().includes(wanted);
  });
  table.closest(".scroll").before(box);
}
const curves = document.querySelector("#curves");
if (curves) {
  const mark = (style) => {
    curves.classList.toggle("marking", style !== null);
    for (const part of curves.querySelectorAll("[data-style]"))
      part.classList.toggle("marked", part.dataset.style === style);
  };
  for (const part of curves.querySelectorAll("[data-style]")) {
    part.addEventListener("mouseenter", () => mark(part.dataset.style));
    part.addEventListener("mouseleave", () => mark(null));
  }
}
for (const tiles of document.querySelectorAll(".tiles")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "larger";
  const say = (large) => {
    button.textContent = large ? "smaller" : "larger";
    button.setAttribute("aria-pressed", large);
  };
  say(false);
  button.addEventListener("click", () => say(tiles.classList.toggle("large")));
  tiles.closest("figure").querySelector("figcaption").append(" ", button);
}
