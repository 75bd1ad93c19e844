// Where rows come from: text, a file that is dropped or chosen, or the pad.

import { make } from "../dom.js";
import { readNpy } from "./npy.js";
import { pad } from "./pad.js";
import { rowsOf, shaped } from "./text.js";

const TYPES = {
  npy: "application/x-npy", npz: "application/x-npz", csv: "text/csv", ndjson: "application/x-ndjson",
  parquet: "application/vnd.apache.parquet", png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", webp: "image/webp", tif: "image/tiff", tiff: "image/tiff",
  zip: "application/zip", tar: "application/x-tar",
};

/** What a version takes: the shape of a row, and what it declares of people's inputs. */
export function takes(details) {
  const [first, ...others] = details.manifest.inputs;
  const kinds = (details.manifest.preprocess ?? []).map((part) => part.kind);
  const isDigits = !kinds.length && !others.length && first.shape.length === 1 && first.shape[0] === 64 && details.manifest.classes?.join("") === "0123456789";
  return { shape: first.shape, inputs: details.manifest.inputs, kinds, isDigits };
}

/** The sentence that says what may be given. */
function told({ shape, inputs, kinds }) {
  if (kinds.includes("table")) return "Rows are a table: drop a .csv, .parquet or .ndjson file, or paste records as JSON.";
  if (kinds.includes("image")) return "Rows are images: drop a .png, .jpg, .webp or .tiff file, or many of them in a .zip or .tar.";
  if (kinds.includes("text")) return "Rows are texts: one a line, or JSON.";
  if (kinds.some((kind) => kind !== "array")) return `Rows are declared as ${kinds.join(", ")}: paste JSON ["row", ...], or drop a file.`;
  if (inputs.length > 1) return `Rows have the inputs ${inputs.map((one) => one.name).join(", ")}: paste JSON {"name": [rows]}, or drop an .npz file.`;
  return `A row has ${shape.join(" x ") || 1} numbers: one row a line, JSON, or drop an .npy file.`;
}

/** Something that gives rows: `{element, given()}`. `changed` is called once there are others. */
export function source(accepted, changed = () => {}) {
  let file = null;
  const note = make("p", { class: "quiet small", "aria-live": "polite" }, told(accepted));
  const text = make("textarea", { id: "rows", spellcheck: false, "aria-describedby": "rows-told", oninput: () => { file = null; } });
  note.id = "rows-told";
  const drawing = accepted.isDigits ? pad(() => {
    const row = drawing.row();
    file = null;
    text.value = row ? row.map((value) => Number(value.toFixed(4))).join(" ") : "";
    changed();
  }) : null;

  function take(chosen) {
    if (!chosen) return;
    file = chosen;
    text.value = "";
    note.textContent = `${chosen.name}, ${chosen.size.toLocaleString("en")} bytes, will be sent.`;
    changed();
  }
  const input = make("input", { type: "file", id: "rows-file", onchange: () => take(input.files[0]) });
  const drop = make("div", { class: "drop" }, make("label", { for: "rows-file" }, "Drop a file here, or choose one"), input);
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });

  const element = make("div", {},
    drawing ? [make("h3", {}, "Draw a digit"), drawing.element] : null,
    make("label", { for: "rows" }, "Rows"), text, note, drop);
  return { element, given: () => (file ? fromFile(file, accepted) : { rows: rowsOf(text.value, accepted) }) };
}

/** What is given by a file: its bytes and their type, and its rows where they can be read here. */
async function fromFile(file, accepted) {
  const ending = file.name.split(".").pop().toLowerCase();
  const type = TYPES[ending] ?? file.type;
  if (ending === "json" || ending === "txt") return { rows: rowsOf(await file.text(), accepted) };
  if (!type) throw new Error(`${file.name}: expected .npy, .npz, .csv, .parquet, .ndjson, .json, .txt or a picture.`);
  const array = ending === "npy" && accepted.inputs.length === 1 ? readNpy(await file.arrayBuffer()) : null;
  const rows = array && { length: array.shape[0], at: (index) => shaped(array.row(index), array.shape.slice(1)) };
  return { type, bytes: file, array: rows };
}
