// Choosing a model and a version; every view that is of one begins so.

import { choice, make } from "../dom.js";
import { ask } from "../server/ask.js";

/** The models, or null with words about how to get one. */
export async function modelsOr(content, signal) {
  const { models } = await ask("v1/models", { signal });
  if (models.length) return models;
  content.append(make("h1", {}, "No models yet"), make("p", {}, "Upload a bundle with ",
    make("code", {}, "dubito register"), ", or make the demonstration with ", make("code", {}, "dubito demo"), "."));
  return null;
}

/** The version that an address names, `#/view/model/version`, and a way to choose another. */
export async function chosen(view, models, parts, signal) {
  const model = models.find((one) => one.model === parts[0]) ?? models[0];
  const usual = model.aliases.default?.version ?? model.versions.at(-1).version;
  const version = model.versions.some((one) => String(one.version) === parts[1]) ? parts[1] : String(usual);
  const go = (...names) => { location.hash = `#/${[view, ...names].map(encodeURIComponent).join("/")}`; };
  const element = make("div", { class: "row" },
    choice("model", "Model", models.map((one) => one.model), model.model, (name) => go(name)),
    choice("version", "Version", model.versions.map((one) => String(one.version)), version, (number) => go(model.model, number)));
  const details = await ask(`v1/models/${encodeURIComponent(model.model)}/versions/${version}`, { signal });
  return { model: model.model, version, details, element };
}
