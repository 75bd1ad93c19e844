// Jobs, with their progress as it comes.

import { download, make, number, when } from "../dom.js";
import { ask, send } from "../server/ask.js";
import { listen } from "../server/events.js";

const LOOK_MS = 5_000;
const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);

export async function show(content, { signal }) {
  const place = make("div", {});
  const shown = new Map();
  async function look() {
    const { jobs } = await ask("v1/jobs", { signal });
    if (!jobs.length) place.replaceChildren(make("p", { class: "quiet" }, "No jobs. A prediction or a selection from a stored pool becomes one."));
    else if (!shown.size) place.replaceChildren();
    for (const job of jobs.slice(0, 100).reverse()) {
      if (shown.has(job.job)) continue;
      const card = cardOf(job);
      shown.set(job.job, card);
      place.prepend(card.element);
      if (!isOver(job)) follow(job.job, card);
    }
  }
  function follow(id, card) {
    listen(`v1/jobs/${id}/events`, signal, (_, job) => card.tell(job)).catch((error) => { if (!signal.aborted) card.fail(error); });
  }
  await look();
  const timer = setInterval(() => look().catch(() => {}), LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  content.append(make("h1", {}, "Jobs"), place);
}

function cardOf(job) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": `Progress of job ${job.job}` });
  const state = make("strong", {});
  const note = make("span", { class: "quiet small" });
  const buttons = make("p", { class: "row" });
  const element = make("section", { class: "card" },
    make("h2", { class: "small" }, `${job.kind} ${job.pool} with ${job.model} ${job.version} `, make("code", {}, job.job)),
    bar, make("p", {}, state, " ", note), buttons);
  function tell(now) {
    bar.value = now.total ? now.done / now.total : 0;
    state.textContent = now.state;
    note.textContent = [`${number(now.done)} of ${number(now.total)} rows`, now.rate_per_s && `${number(now.rate_per_s)} a second`,
      now.remaining_s && `${number(now.remaining_s)} s left`, now.reason, isOver(now) ? when(now.finished_at) : null, `asked by ${now.actor}`].filter(Boolean).join(", ");
    buttons.replaceChildren(...actions(now, tell, fail));
  }
  function fail(error) {
    note.textContent = error.message;
  }
  tell(job);
  return { element, tell, fail };
}

function actions(job, tell, fail) {
  const button = (text, act) => make("button", { type: "button", onclick: () => act().catch(fail) }, text);
  if (!isOver(job)) return [button("Cancel", async () => tell(await ask(`v1/jobs/${job.job}`, { method: "DELETE" })))];
  if (!job.result) return [];
  const fetchIt = button("Keep the result as a file", async () => {
    const response = await send(`v1/jobs/${job.job}/result`);
    const ending = { "application/json": "json", "application/x-npz": "npz" }[response.headers.get("Content-Type")] ?? "parquet";
    download(`${job.job}.${ending}`, await response.blob());
  });
  return job.kind === "select" ? [make("a", { href: `#/label/${encodeURIComponent(job.model)}/${job.version}/${job.job}` }, "Label what it chose"), fetchIt] : [fetchIt];
}
