// A calibration: what it promised, its report before and after, and its pictures.

import { facts, make, number, table, warnings, when } from "../dom.js";
import { reportPictures } from "../figures/reports.js";
import { action, ask } from "../server/ask.js";
import { chosen, modelsOr } from "./choosing.js";

export async function show(content, { parts, signal }) {
  const models = await modelsOr(content, signal);
  if (!models) return;
  const { model, version, element } = await chosen("calibration", models, parts, signal);
  const page = await ask(action(model, version, "calibration"), { signal });
  content.append(make("h1", {}, "Calibration"), element);
  if (page.calibration === null) {
    content.append(make("p", {}, "No calibration is active: sets, intervals, decisions and flags are not promised. Fit one with ",
      make("code", {}, `dubito calibrate ${model}`), " on labelled rows that the network was not trained on."));
    return;
  }
  content.append(...[
    page.verdict ? make("ul", {}, page.verdict.split(/\. (?=\w+: )/).map((sentence) => make("li", {}, sentence))) : null,
    facts({ number: page.calibration, fitted: when(page.created_at), rows: page.num_rows, coverage: page.coverage,
      "false alarms": page.alpha, flag: `${page.ood.score.replaceAll("_", " ")}, threshold ${number(page.ood.threshold)}`,
      "blind to": page.ood.blind_to.join(", "), decides: page.policy.kind }),
    warnings(page.warnings),
    make("div", { class: "figures" }, reportPictures(page.curves)),
    figures(page.report)].filter(Boolean));
}

function figures(report) {
  const between = (interval) => (interval ? `${number(interval[0])} to ${number(interval[1])}` : "");
  return make("section", {}, make("h2", {}, "Figures"),
    table(["figure", "before", "95 % interval", "after", "95 % interval"], Object.keys(report.after).map((name) => [
      name.replaceAll("_", " "), number(report.before[name]), between(report.intervals.before?.[name]),
      number(report.after[name]), between(report.intervals.after?.[name])]), "On rows that no fit has seen"));
}
