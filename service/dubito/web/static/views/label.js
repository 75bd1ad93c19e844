// The latest selection as a queue: a row at a time, what the network makes of it, and its label.
//
// Labels go back as feedback on the prediction that is made here, so they need an active
// calibration; and they can be kept as a file, for training again.

import { choice, download, make, number } from "../dom.js";
import { drawRow, sideOf } from "../rows/pictures.js";
import { source, takes } from "../rows/source.js";
import { action, ask, tell } from "../server/ask.js";
import { chosen, modelsOr } from "./choosing.js";
import { oneRow } from "./predict.js";

const STRATEGIES = { classification: ["bald", "batchbald", "entropy", "margin", "random"], regression: ["variance", "bald", "random"] };
const OUTPUTS = { classification: ["label", "mean", "variance", "expected_entropy", "mutual_information", "prediction_set", "decision", "ood"],
  regression: ["mean", "variance", "epistemic_variance", "aleatoric_variance", "interval", "decision", "ood"] };
const MOST = 200;
const SAMPLES_UP_TO = 20;  // rows: the passes of more would be a long reply

export async function show(content, { parts, signal }) {
  const models = await modelsOr(content, signal);
  if (!models) return;
  const at = await chosen("label", models, parts, signal);
  const jobs = await selections(at, signal);
  const { kinds } = takes(at.details);
  const queue = make("div", {});
  const said = make("p", { class: "small", "aria-live": "polite" });
  const begin = async (gather) => {
    said.textContent = "Asking …";
    try {
      queue.replaceChildren(...await queued(at, await gather(), signal));
      said.textContent = "";
    } catch (error) {
      if (!signal.aborted) said.textContent = error.message;
    }
  };
  content.append(make("h1", {}, "Label"), at.element,
    make("p", { class: "quiet small" }, "What the network would learn most from, one row after the other."),
    jobs.length ? latest(jobs, kinds, begin, signal) : make("p", { class: "quiet" }, "No selection from a stored pool has ended yet."),
    choosing(at, begin, signal), said, queue);
  const wanted = jobs.find((job) => job.job === parts[2]);
  if (wanted) await begin(() => ofJob(wanted, kinds, signal));
}

/** Selections of this version that succeeded, the latest first. */
async function selections({ model, version }, signal) {
  const { jobs } = await ask("v1/jobs", { signal });
  return jobs.filter((job) => job.kind === "select" && job.state === "succeeded" && job.model === model && String(job.version) === version);
}

function latest([job], kinds, begin, signal) {
  return make("p", {}, make("button", { type: "button", class: "main", onclick: () => begin(() => ofJob(job, kinds, signal)) }, "Label the latest selection"),
    ` from the pool ${job.pool}, `, make("code", {}, job.job));
}

/** The chosen rows of a job, which the pool still holds. */
async function ofJob(job, kinds, signal) {
  const result = await ask(`v1/jobs/${job.job}/result`, { signal });
  const indices = result.indices.slice(0, MOST);
  const query = new URLSearchParams({ indices: indices.join(",") });
  const page = await ask(`v1/pools/${encodeURIComponent(job.pool)}/rows?${query}`, { signal });
  return { indices, scores: result.scores, strategy: result.strategy, ...asInputs(page, kinds) };
}

/** Rows of a pool one by one, to be shown, and as a prediction takes them. */
function asInputs({ rows, features }, kinds) {
  const isTable = kinds.includes("table");
  if (Array.isArray(rows)) {
    const named = isTable && features.length ? rows.map((row) => Object.fromEntries(features.map((name, place) => [name, row[place]]))) : rows;
    return { rows: named, inputs: named };
  }
  const names = Object.keys(rows);
  const records = rows[names[0]].map((_, place) => Object.fromEntries(names.map((name) => [name, rows[name][place]])));
  return { rows: records, inputs: isTable ? records : rows };
}

/** A form that selects from rows that are given here. */
function choosing(at, begin, signal) {
  const rows = source(takes(at.details));
  let strategy = STRATEGIES[at.details.task][0];
  const count = make("input", { type: "number", id: "k", min: "1", max: String(MOST), value: "10" });
  return make("details", {}, make("summary", {}, "Choose from rows of your own"),
    make("form", { onsubmit: (event) => { event.preventDefault(); begin(() => ofRows(at, rows, strategy, Number(count.value), signal)); } },
      rows.element, make("div", { class: "row" }, choice("strategy", "Strategy", STRATEGIES[at.details.task], strategy, (name) => { strategy = name; }),
        make("span", {}, make("label", { for: "k" }, "How many"), count),
        make("button", { type: "submit" }, "Choose what to label"))));
}

async function ofRows({ model, version }, source_, strategy, k, signal) {
  const given = await source_.given();
  const all = given.rows ?? (given.array && Array.from({ length: given.array.length }, (_, index) => given.array.at(index)));
  if (!Array.isArray(all)) throw new Error("Expected rows that this page can read: numbers, JSON records, or an .npy file in C order.");
  const result = await tell(action(model, version, "select"), { strategy, k: Math.min(k, all.length), inputs: all }, { signal });
  const chosenRows = result.indices.map((index) => all[index]);
  return { indices: result.indices, scores: result.scores, strategy, rows: chosenRows, inputs: chosenRows };
}

/** Predict the chosen rows, under an id to which the labels go back, and walk through them. */
async function queued(at, { indices, scores, rows, inputs, strategy }, signal) {
  const { details } = at;
  const reply = await tell(action(at.model, at.version, "predict"), { inputs, outputs: [...OUTPUTS[details.task], ...(rows.length <= SAMPLES_UP_TO ? ["samples"] : [])] }, { signal });
  const labels = new Array(indices.length).fill(null);
  const place = make("section", { class: "card", id: "queue", "aria-label": "Labelling queue" });
  const keep = () => download(`labels-${at.model}.csv`, csv(indices, labels), "text/csv");
  const end = make("div", { class: "row" });
  const told = make("p", { "aria-live": "polite" });

  const answer = (row, label) => {
    labels[row] = label;
    const next = labels.findIndex((one, later) => one === null && later > row);
    look(next < 0 ? Math.min(row + 1, indices.length - 1) : next);
  };
  const look = (row) => {
    place.replaceChildren(...card({ at, row, rows, indices, scores, strategy, labels, answer, look, outputs: reply.outputs }));
    const done = labels.filter((one) => one !== null).length;
    end.replaceChildren(
      make("button", { type: "button", class: "main", disabled: done === 0 || reply.calibration === null, onclick: () => sent().catch((error) => { told.textContent = error.message; }) }, `Send ${done} as feedback`),
      make("button", { type: "button", disabled: done === 0, onclick: keep }, "Keep the labels as a file"));
  };
  async function sent() {
    const given = labels.flatMap((label, row) => (label === null ? [] : [{ row, ...(details.task === "classification" ? { label } : { target: label }) }]));
    const { stored } = await tell(action(at.model, null, "feedback"), { request_id: reply.request_id, rows: given }, { signal });
    const total = stored.reduce((sum, one) => sum + one.new + one.known, 0);
    told.textContent = `Thank you: ${total} outcomes are stored. `;
    told.append(make("a", { href: "#/live" }, "See what they say of the promises"));
  }
  look(0);
  const notes = reply.calibration === null ? "No calibration is active, so labels cannot go back as feedback; they can be kept as a file. " : "";
  return [place, end, told, make("p", { class: "quiet small" }, `${notes}These are the rows that the network doubts most: outcomes of them alone say little of the rest, and coverage looks worse than it is.`)];
}

function card({ at, row, rows, indices, scores, strategy, labels, answer, look, outputs }) {
  const { details } = at;
  const classes = details.manifest.classes;
  const go = (to, text) => make("button", { type: "button", disabled: to < 0 || to >= rows.length, onclick: () => look(to) }, text);
  return [
    make("h2", {}, `Row ${indices[row]} of the pool, ${row + 1} of ${rows.length}`),
    make("div", { class: "ask" }, shownRow(rows[row], details),
      make("div", {}, make("p", { class: "quiet small" }, `${strategy} ${number(scores[row])}`),
        make("h3", {}, "What is it?"),
        classes ? classButtons(classes, labels[row], (label) => answer(row, label)) : numberForm(labels[row], (value) => answer(row, value)),
        make("p", { class: "row" }, go(row - 1, "Back"), go(row + 1, "Skip")),
        make("details", {}, make("summary", {}, "What the network says"), ...oneRow(outputs, row, details)))),
  ];
}

function classButtons(classes, chosenLabel, answer) {
  return make("div", { class: "labels", role: "group", "aria-label": "Label" }, classes.map((name) =>
    make("button", { type: "button", "aria-pressed": String(name === chosenLabel), onclick: () => answer(name) }, name)));
}

function numberForm(value, answer) {
  const input = make("input", { type: "number", step: "any", id: "target", value: value === null ? "" : String(value), required: true });
  return make("form", { class: "row", onsubmit: (event) => { event.preventDefault(); answer(Number(input.value)); } },
    make("span", {}, make("label", { for: "target" }, "True value"), input), make("button", { type: "submit" }, "Keep"));
}

function shownRow(row, details) {
  if (typeof row === "string" && row.startsWith("data:image/")) return make("img", { class: "thumb", src: row, alt: "The row as a picture" });
  const side = Array.isArray(row) ? sideOf(details.manifest.inputs[0].shape) : null;
  if (side === null) return make("pre", { class: "small" }, JSON.stringify(row, null, 1).slice(0, 2000));
  const canvas = make("canvas", { class: "thumb", role: "img", "aria-label": "The row as a picture" });
  drawRow(canvas, row.flat(3), side);
  return canvas;
}

function csv(indices, labels) {
  const cell = (value) => (/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : value);
  return ["index,label", ...labels.flatMap((label, row) => (label === null ? [] : [`${indices[row]},${cell(label)}`]))].join("\n") + "\n";
}
