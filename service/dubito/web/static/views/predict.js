// Rows in, answers with their doubt out. What is tried here is kept out of monitoring.

import { make, percent, warnings } from "../dom.js";
import { classPicture, numberPicture, splitPicture } from "../figures/predictions.js";
import { advice, listed, rivals } from "../figures/words.js";
import { source, takes } from "../rows/source.js";
import { action, ask, tell } from "../server/ask.js";
import { chosen, modelsOr } from "./choosing.js";

const SAMPLES_BELOW = 200_000;  // bytes of a body: the passes of many rows would be a long reply
const OF_CLASSES = ["label", "mean", "variance", "predictive_entropy", "expected_entropy", "mutual_information", "prediction_set", "decision", "ood"];
const OF_NUMBERS = ["mean", "variance", "epistemic_variance", "aleatoric_variance", "interval", "decision", "ood"];
const OF_TOKENS = ["mean", "variance", "normalised_mean", "normalised_variance", "num_tokens"];
const OF_TASK = { classification: OF_CLASSES, sequence: OF_TOKENS };

export async function show(content, { parts, signal }) {
  const models = await modelsOr(content, signal);
  if (!models) return;
  const { model, version, details, element } = await chosen("predict", models, parts, signal);
  const rows = source(takes(details));
  const count = make("input", { type: "number", id: "samples", min: "2", max: "4096", value: String(details.defaults.num_samples ?? 64) });
  const answer = make("div", { id: "answer", "aria-live": "polite" }, make("p", { class: "quiet" }, "The answer will stand here."));
  const button = make("button", { type: "submit", class: "main" }, "Predict");
  const form = make("form", { onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const reply = await predicted({ model, version, details, count: Number(count.value), given: await rows.given(), signal });
      answer.replaceChildren(...answered(reply, details));
    } catch (error) {
      if (!signal.aborted) answer.replaceChildren(make("p", { class: "alert bad", role: "alert" }, error.message));
    } finally {
      button.disabled = false;
    }
  } }, rows.element, make("div", { class: "row" }, make("span", {}, make("label", { for: "samples" }, "Samples (T)"), count), button));
  content.append(make("h1", {}, "Predict"), element, make("p", { class: "quiet small" }, details.notes ?? ""),
    make("div", { class: "pair" }, form, answer));
}

/** Ask for a prediction of rows, or of a file as it is. */
function predicted({ model, version, details, count, given, signal }) {
  const path = action(model, version, "predict");
  const body = given.bytes ?? JSON.stringify({ inputs: given.rows });
  const outputs = [...(OF_TASK[details.task] ?? OF_NUMBERS)];
  const length = given.bytes?.size ?? body.length;
  if (length <= SAMPLES_BELOW || given.type?.startsWith("image/")) outputs.push("samples");
  const headers = { "X-Unobserved": "1" };
  if (!given.bytes) return tell(path, { inputs: given.rows, num_samples: count, outputs }, { headers, signal });
  const query = new URLSearchParams({ num_samples: count, outputs: outputs.join(",") });
  return ask(`${path}?${query}`, { method: "POST", headers: { ...headers, "Content-Type": given.type }, body, signal });
}

/** What the page shows of a reply: one row, and where there are more a list to choose from. */
function answered(reply, details) {
  const { outputs } = reply;
  const place = make("div", {});
  const look = (row) => place.replaceChildren(...oneRow(outputs, row, details));
  look(0);
  const length = outputs.mean.length;
  return [warnings(reply.warnings), length > 1 ? list(outputs, length, look) : null, place,
    make("p", { class: "quiet small" }, `${reply.model} ${reply.version}, ${reply.num_samples} samples, ${reply.calibration === null ? "no calibration" : `calibration ${reply.calibration}`}`)].filter(Boolean);
}

function list(outputs, length, look) {
  const shown = Math.min(length, 200);
  return make("details", { open: true, class: "rows" }, make("summary", {}, `${length} rows${shown < length ? `, the first ${shown}` : ""}`),
    make("div", { class: "labels" }, Array.from({ length: shown }, (_, row) =>
      make("button", { type: "button", class: outputs.decision?.[row] ?? null, onclick: () => look(row) }, `${row}: ${named(outputs, row)}`))));
}

const named = (outputs, row) => (outputs.label ? [outputs.label[row]].flat(3).slice(0, 3).join(", ") : [outputs.mean[row]].flat(3).slice(0, 3).map((value) => Number(value).toPrecision(4)).join(", "));

/** Verdict, words and pictures of one row. */
export function oneRow(outputs, row, details) {
  const decision = outputs.decision?.[row] ?? null;
  const flag = outputs.ood?.flag?.[row] ?? null;
  const isPlain = Array.isArray(outputs.mean[row]) && typeof outputs.mean[row][0] === "number";
  const set = outputs.prediction_set?.[row] ?? null;
  const interval = isPlain && outputs.interval ? [outputs.interval.lower[row][0], outputs.interval.upper[row][0]] : null;
  const open = isPlain && details.task === "classification" ? rivals(details.manifest.classes, outputs.mean[row]) : [];
  const isSet = Array.isArray(set) && set.every((name) => typeof name === "string");
  return [
    make("div", { class: "verdict" }, make("span", { class: "answer" }, named(outputs, row)),
      decision ? make("span", { class: `chip ${decision}` }, decision) : null,
      flag ? make("span", { class: "chip reject" }, "flagged: strange") : null),
    make("p", { class: "words" }, advice({ decision, label: named(outputs, row), set: isSet ? set : null, flag, pValue: outputs.ood?.p_value?.[row], interval, open })),
    isSet && set.length ? make("p", {}, `Set: ${listed(set)}. `, outputs.ood ? make("span", { class: "quiet" }, `Strangeness p = ${percent(outputs.ood.p_value[row])}.`) : null) : null,
    ...(isPlain ? pictures(outputs, row, details, interval) : [make("p", { class: "quiet" }, "Figures at every position are not drawn here: ask the API for the maps.")]),
  ].filter(Boolean);
}

function pictures(outputs, row, details, interval) {
  const samples = outputs.samples?.[row];
  if (details.task === "classification") {
    return [classPicture(details.manifest.classes, outputs.mean[row], outputs.variance[row], samples),
      splitPicture(outputs.mutual_information[row], outputs.expected_entropy[row], "nats")];
  }
  return outputs.mean[row].flatMap((mean, output) => [
    numberPicture(outputs.mean[row].length > 1 ? `Output ${output}` : "The answer", mean, outputs.variance[row][output], samples?.map((one) => one[output]),
      output === 0 ? interval : null),
    splitPicture(outputs.epistemic_variance[row][output], outputs.aleatoric_variance[row][output], "target units squared")]);
}
