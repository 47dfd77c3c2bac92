// Elements of the page. Texts of runs only ever become text, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with attributes (functions listen, `text` is its text) and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "text") made.textContent = value;
    else if (name === "colour") made.style.background = value;
    else if (name === "value" || name === "checked" || name === "hidden") made[name] = value;
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A figure as a reader wants it. */
export function digits(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "string") return value;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  return size >= 1e-3 || size === 0 ? value.toFixed(3) : value.toExponential(1);
}

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;

export function complain(sentence) {
  byId("error").textContent = sentence;
  byId("error").hidden = !sentence;
}

/** What lies at an address; an error says the server's sentence. */
export async function fetched(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Start doubtmap view again.");
  }
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 400));
  return answer;
}
