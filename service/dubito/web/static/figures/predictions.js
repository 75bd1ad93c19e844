// The picture of one row: mean and spread of each class or output, and the T samples as dots.

import { make, number, percent } from "../dom.js";
import { chart } from "./chart.js";
import { origin } from "./words.js";

const SHOWN = 30;

/** Probabilities of a row by class; `samples` (T, C) may be missing. */
export function classPicture(names, mean, variance, samples) {
  const order = names.length <= SHOWN ? names.map((_, place) => place)
    : [...names.keys()].sort((a, b) => mean[b] - mean[a]).slice(0, SHOWN);
  const shown = order.map((place) => names[place]);
  const spread = order.map((place) => Math.sqrt(variance[place]));
  const x = order.map((_, place) => place);
  const y = order.map((place) => mean[place]);
  const top = y.indexOf(Math.max(...y));
  return chart({
    title: samples ? `Probability of each class: mean, spread, and ${samples.length} samples` : "Probability of each class: mean and spread",
    told: `Bars are means over the samples, upright lines one standard deviation to each side${samples ? ", dots what each thinned network says" : ""}.`,
    summary: `Most probable is ${shown[top]} with ${percent(y[top])}, give or take ${percent(spread[top])}.`,
    x: { label: "class", min: -0.6, max: order.length - 0.4, names: shown },
    y: { label: "probability", min: 0, max: 1 },
    marks: [
      { kind: "bars", label: "mean", x, y, color: "own" },
      ...(samples ? [{ kind: "dots", label: "samples", color: "raw", size: 4, opacity: 0.5, ...scattered(samples, order) }] : []),
      { kind: "whiskers", label: "± one standard deviation", x, color: "ink", thick: 2.2,
        low: y.map((value, place) => value - spread[place]), high: y.map((value, place) => value + spread[place]) },
    ],
    numbers: [["class", "mean", "standard deviation"], order.map((place, at) => [names[place], mean[place], spread[at]]), "Probability of each class"],
  });
}

/** Dots beside each other, so that none hides another: T per class. */
function scattered(samples, order) {
  const x = [];
  const y = [];
  order.forEach((place, at) => samples.forEach((row, t) => {
    x.push(at + 0.5 * ((t + 0.5) / samples.length - 0.5));
    y.push(row[place]);
  }));
  return { x, y };
}

/** A number of a row: `samples` are the means of the passes; `interval` may be missing. */
export function numberPicture(title, mean, variance, samples, interval) {
  const spread = Math.sqrt(variance);
  const dots = samples ?? [];
  const parts = [mean - 2 * spread, mean + 2 * spread, ...(interval ?? []), ...dots];
  return chart({
    title,
    told: "Dots are the means of the thinned networks, the line is the interval or one standard deviation to each side; the network's own noise is in the line alone.",
    summary: `The mean is ${number(mean)}, give or take ${number(spread)}.`,
    x: { label: "value", min: Math.min(...parts), max: Math.max(...parts) },
    y: { label: "", min: 0, max: 1, names: [] },
    height: 180,
    marks: [
      { kind: "dots", label: "samples", color: "raw", x: dots, y: dots.map((_, t) => 0.15 + (0.55 * t) / Math.max(1, dots.length)) },
      ...(interval ? [{ kind: "line", label: "interval", color: "own", x: interval, y: [0.85, 0.85] }] : []),
      { kind: "line", label: "± one standard deviation", color: "ink", dashed: true, x: [mean - spread, mean + spread], y: [0.93, 0.93] },
      { kind: "rule", label: "mean", color: "own", x: [mean] },
    ],
    numbers: [["figure", "value"], [["mean", mean], ["standard deviation", spread], ...(interval ? [["lower end", interval[0]], ["upper end", interval[1]]] : [])], title],
  });
}

/** Doubt in its two parts, as one bar and a sentence. */
export function splitPicture(own, data, unit) {
  const total = own + data;
  const share = total > 0 ? Math.max(0, own) / total : 0;
  const bar = make("div", { class: "split", role: "img", "aria-label": `${percent(share)} of ${number(total)} ${unit} is the network's own doubt.` },
    make("span", { class: "own" }), make("span", { class: "data" }));
  bar.firstChild.style.width = `${100 * share}%`;
  bar.lastChild.style.width = `${100 * (1 - share)}%`;
  return make("figure", {}, make("h3", {}, `Doubt: ${number(total)} ${unit}`), bar,
    make("p", { class: "small" }, `The network's own (epistemic): ${number(own)}. In the row itself (aleatoric): ${number(data)}.`),
    make("figcaption", {}, origin(own, total, unit)));
}
