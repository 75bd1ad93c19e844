// Models and versions; of one version its sites, its plan, and what is known of it.

import { facts, make, number, table, warnings, when } from "../dom.js";
import { chosen, modelsOr } from "./choosing.js";

export async function show(content, { parts, signal }) {
  const models = await modelsOr(content, signal);
  if (!models) return;
  content.append(make("h1", {}, "Models"), table(["model", "version", "aliases", "state", "task", "uploaded"],
    models.flatMap((model) => model.versions.map((one) => [
      make("a", { href: `#/models/${encodeURIComponent(model.model)}/${one.version}` }, model.model),
      one.version, one.aliases.join(", "), one.state, one.task, when(one.created_at)])), "All versions"));
  const { details, element } = await chosen("models", models, parts, signal);
  content.append(...[make("h2", {}, `${details.model}, version ${details.version}`), element, about(details),
    warnings(details.warnings), ...sites(details), ...plan(details)].filter(Boolean));
}

function about(details) {
  const { manifest } = details;
  const inputs = manifest.inputs.map((one) => `${one.name} ${one.dtype} (${["rows", ...one.shape].join(", ")})`).join("; ");
  const active = details.active_calibration;
  return facts({
    notes: details.notes,
    state: details.reason ? `${details.state}: ${details.reason}` : details.state,
    task: `${details.task}, ${details.output}`,
    classes: manifest.classes?.slice(0, 20).join(", "),
    inputs,
    "made of": manifest.preprocess?.map((part) => part.kind).join(", "),
    sampling: Object.entries(details.defaults).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}`).join(", "),
    calibration: active
      ? make("span", {}, make("a", { href: `#/calibration/${encodeURIComponent(details.model)}/${details.version}` }, `number ${active.calibration}`), ` of ${details.calibrations.length}: ${active.verdict ?? ""}`)
      : "none is active",
    size: `${number(details.size_bytes)} bytes`,
    digest: make("code", {}, details.digest),
    torch: details.torch_version,
    uploaded: `${when(details.created_at)} by ${details.uploader}`,
  });
}

function sites(details) {
  return [make("h2", {}, "Sites: where chance enters"),
    table(["site", "module", "operator", "distribution", "p", "acts on", "shape"], details.sites.map((site) => [
      String(site.index), site.module_path, site.operator, site.distribution,
      site.drop_prob === null || site.drop_prob === undefined ? "" : `${number(site.drop_prob)}${site.learned ? " learned" : ""}`,
      site.granularity, String(site.shape)]), "Random operations of the network")];
}

function plan(details) {
  const title = make("h2", {}, "Plan: how often each part runs");
  if (!details.plan) return [title, make("p", { class: "quiet" }, "The plan is made when the version is loaded, which its next request does.")];
  return [title,
    table(["part", "runs", "operators"], details.plan.parts.map((part) => [part.name, part.runs, part.operators]), "Parts of the plan"),
    details.plan.forms.length
      ? table(["form", "in the place of", "used from rows"], details.plan.forms.map((form) => [form.name, form.nodes.join(" to "), form.from_rows === null ? "never" : String(form.from_rows)]), "Forms that may take the place of dense masks")
      : make("p", { class: "quiet" }, "No form beside dense masks is used.")];
}
