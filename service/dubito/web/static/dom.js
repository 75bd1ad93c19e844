// Elements from values. Text is always set as text, so that names and notes of strangers stay text.

/** Make an element: `make("p", {class: "quiet"}, "some ", make("b", {}, "words"))`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table with a row of headings; cells that are numbers stand right. */
export function table(headings, rows, caption = null) {
  const cell = (value, tag) =>
    make(tag, { class: typeof value === "number" ? "value" : null }, typeof value === "number" ? number(value) : value ?? "");
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption ?? headings.join(", ") },
    make("table", {},
      caption ? make("caption", {}, caption) : null,
      make("thead", {}, make("tr", {}, headings.map((heading) => make("th", { scope: "col" }, heading)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((value, place) =>
        place === 0 ? make("th", { scope: "row" }, value instanceof Node ? value : String(value ?? "")) : cell(value, "td")))))));
}

/** Names and values, one a line. */
export function facts(pairs) {
  return make("dl", {}, Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [make("dt", {}, name), make("dd", {}, value instanceof Node ? value : String(value))]));
}

/** A list of warnings, or nothing. */
export function warnings(list) {
  return list?.length ? make("ul", { class: "warnings" }, list.map((one) => make("li", {}, one))) : null;
}

/** A choice among values. */
export function choice(id, label, values, chosen, change) {
  const select = make("select", { id, onchange: () => change(select.value) },
    values.map((value) => make("option", { value, selected: value === chosen }, value)));
  return make("span", {}, make("label", { for: id }, label), select);
}

/** A number as people read it. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A share in per cent. */
export const percent = (share) => `${Number((100 * share).toPrecision(Math.abs(share) < 0.1 ? 2 : 3))} %`;

/** A time as this place writes it. */
export const when = (text) => (text ? new Date(text).toLocaleString() : "–");

/** Let a person keep text or bytes as a file. */
export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
