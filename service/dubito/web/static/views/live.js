// What happens now: rates from `/metrics`, and what each model's monitoring says.

import { make, number, percent, table, when } from "../dom.js";
import { chart } from "../figures/chart.js";
import { action, ask, send } from "../server/ask.js";
import { samples, sum } from "../server/telemetry.js";
import { modelsOr } from "./choosing.js";

const EVERY_MS = 2_000;
const KEPT = 150;

export async function show(content, { signal }) {
  const models = await modelsOr(content, signal);
  if (!models) return;
  const now = make("div", {});
  const drawn = make("div", { class: "figures" });
  const alarms = make("div", {});
  const seen = [];

  async function look() {
    const at = performance.now() / 1000;
    const told = await standing(signal);
    seen.push({ at, ...told });
    if (seen.length > KEPT) seen.shift();
    now.replaceChildren(table(["now", "value"], Object.entries(rates(seen)).map(([name, value]) => [name, number(value)]), "At this moment"));
    if (seen.length > 2) drawn.replaceChildren(...pictures(seen));
  }
  async function watch() {
    alarms.replaceChildren(...await Promise.all(models.map((model) => monitored(model.model, signal))));
  }
  await Promise.all([look(), watch()]);
  const quietly = (act) => () => act().catch(() => {});
  const timers = [setInterval(quietly(look), EVERY_MS), setInterval(quietly(watch), 5 * EVERY_MS)];
  signal.addEventListener("abort", () => timers.forEach(clearInterval));
  content.append(make("h1", {}, "Live"), now, drawn, make("h2", {}, "Promises and alarms"), alarms);
}

async function standing(signal) {
  const all = samples(await (await send("metrics", { signal })).text());
  return {
    requests: sum(all, "dubito_http_requests_total"),
    rows: sum(all, "dubito_predicted_rows_total"),
    flagged: sum(all, "dubito_flagged_rows_total"),
    rejected: sum(all, "dubito_rejected_requests_total"),
    queue: sum(all, "dubito_queue_rows"),
    jobs: sum(all, "dubito_jobs", { state: "running" }),
  };
}

/** Differences of counts by the seconds between the last two looks. */
function rates(seen) {
  const last = seen.at(-1);
  const before = seen.at(-2) ?? last;
  const seconds = last.at - before.at || 1;
  const perSecond = (name) => Math.max(0, last[name] - before[name]) / seconds;
  return {
    "requests a second": perSecond("requests"), "rows a second": perSecond("rows"), "rows waiting": last.queue,
    "rejected a second": perSecond("rejected"), "rows flagged since the start": last.flagged, "jobs running": last.jobs,
  };
}

function pictures(seen) {
  const x = seen.slice(1).map((one) => one.at - seen.at(-1).at);
  const steps = seen.slice(1).map((one, place) => rates([seen[place], one]));
  const line = (title, name) => chart({
    title, height: 160, x: { label: "seconds", max: 0 }, y: { label: "", min: 0 },
    summary: `Now ${number(steps.at(-1)[name])}.`,
    marks: [{ kind: "line", color: "own", x, y: steps.map((one) => one[name]) }],
  });
  return [line("Rows a second", "rows a second"), line("Requests a second", "requests a second")];
}

async function monitored(model, signal) {
  const page = await ask(action(model, null, "monitoring"), { signal });
  const { outcomes, drift } = page;
  const up = Object.entries(page.alarms);
  const rate = (one) => (one ? `${percent(one.observed)} (${percent(one.lower)} to ${percent(one.upper)})` : "–");
  const rows = [];
  if (outcomes) {
    rows.push(["coverage", percent(outcomes.promised_coverage), outcomes.coverage.map(rate).join("; ") || "no outcomes yet"],
      ["flagged", percent(outcomes.promised_flag_rate), rate(outcomes.flag_rate)],
      ["outcomes", "", number(outcomes.rows)]);
  }
  if (drift) rows.push(["capital of the drift test", `rings at ${number(drift.level)}`, `${number(drift.martingale)} after ${number(drift.rows)} rows`]);
  return make("section", { class: "card" }, make("h3", {}, `${model}, version ${page.version}`),
    up.length
      ? make("p", { class: "alert bad", role: "alert" }, up.map(([name, since]) => `${name} alarm since ${when(since)}`).join("; "))
      : make("p", { class: "quiet" }, page.calibration === null ? "Nothing is promised: no calibration is active." : "No alarm."),
    rows.length ? table(["", "promised", "found"], rows, `Monitoring of ${model}`) : null);
}
