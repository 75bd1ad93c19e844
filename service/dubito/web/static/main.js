// Which part of the page stands: the fragment of the address says it, `#/predict/digits`.

import { make } from "./dom.js";
import { forget, key } from "./server/key.js";
import { show as calibration } from "./views/calibration.js";
import { show as jobs } from "./views/jobs.js";
import { show as label } from "./views/label.js";
import { show as live } from "./views/live.js";
import { show as models } from "./views/models.js";
import { show as predict } from "./views/predict.js";

const VIEWS = { models, predict, calibration, label, jobs, live };
const OF_ALL = new Set(["jobs", "live"]);  // parts that are of no one model
const place = document.getElementById("place");
let leaving = new AbortController();

async function stand() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const view = Object.hasOwn(VIEWS, name) ? name : "models";
  tellNav(view, parts);
  const content = make("div", {});
  place.replaceChildren(make("p", { class: "quiet" }, "Loading …"));
  try {
    await VIEWS[view](content, { parts, signal });
    if (!signal.aborted) place.replaceChildren(content);
  } catch (error) {
    if (!signal.aborted) place.replaceChildren(told(error));
  }
  tellWho();
}

/** Mark the part that stands; the others keep the model and version that were chosen. */
function tellNav(view, parts) {
  for (const link of document.querySelectorAll("nav a")) {
    const name = link.hash.split("/")[1];
    link.hash = ["#", name, ...(OF_ALL.has(name) || OF_ALL.has(view) ? [] : parts.slice(0, 2).map(encodeURIComponent))].join("/");
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function told(error) {
  return make("div", { class: "alert bad", role: "alert" }, make("p", {}, error.message),
    make("button", { type: "button", onclick: stand }, "Try again"));
}

function tellWho() {
  document.getElementById("who").replaceChildren(
    make("a", { href: "docs" }, "API"),
    ...(key() ? [" · ", make("button", { type: "button", onclick: () => { forget(); stand(); } }, "Forget the key")] : []));
}

window.addEventListener("hashchange", () => { if (location.hash !== "#place") { stand(); place.focus(); } });
stand();
