// The pictures of a calibration or an evaluation, from the curves of its report.

import { chart } from "./chart.js";

const UNIT = { min: 0, max: 1 };
const DIAGONAL = { kind: "line", label: "as it should be", x: [0, 1], y: [0, 1], color: "quiet", dashed: true };
const LOOKS = { before: { color: "raw", dashed: true }, after: { color: "own" } };

/** All pictures that the curves hold, by heading (`before`, `after`). */
export function reportPictures(curves) {
  const last = curves.after ?? Object.values(curves)[0];
  return [
    last.bins?.length ? reliability(curves) : null,
    last.bins?.length ? counts(last) : null,
    last.risk_coverage ? lines("risk_coverage", curves, {
      title: "Risk and coverage", xLabel: "share of rows kept, the most confident", yLabel: "error rate", yMin: 0,
      told: "Error rate once only the most confident rows are answered. A curve that falls to the left says that confidence knows where the errors are." }) : null,
    last.coverage ? lines("coverage", curves, {
      title: "Promised and found", xLabel: "level", yLabel: "share of targets", yMin: 0, yMax: 1, extra: [DIAGONAL],
      told: "Share of targets inside the central interval at each level (of quantiles: at or below it). Below the dashed line the network is too sure." }) : null,
    last.pit?.length ? pit(last) : null,
    last.sparsification ? lines("sparsification", curves, {
      title: "Sparsification", xLabel: "share of rows left out", yLabel: "RMSE / RMSE of all", yMin: 0,
      extra: last.oracle ? [{ kind: "line", label: "best order", color: "quiet", dashed: true, x: last.oracle.x, y: last.oracle.y }] : [],
      told: "Error that is left once the rows of largest predicted variance are left out, against the best order there is." }) : null,
    last.scores ? scores(last.scores) : null,
  ].filter(Boolean);
}

function reliability(curves) {
  const marks = Object.entries(curves).map(([heading, one]) => {
    const filled = one.bins.filter((bin) => bin.accuracy !== null);
    return { kind: "line", dotted: true, label: heading, ...LOOKS[heading], x: filled.map((bin) => bin.confidence), y: filled.map((bin) => bin.accuracy) };
  });
  const last = (curves.after ?? Object.values(curves)[0]).bins;
  return chart({
    title: "Reliability", x: { label: "confidence, the largest probability", ...UNIT }, y: { label: "accuracy", ...UNIT },
    told: "Accuracy of the rows in each bin of confidence. On the dashed diagonal confidence is right; below it the network is too sure.",
    marks: [DIAGONAL, ...marks],
    numbers: [["bin", "rows", "confidence", "accuracy"], last.map((bin) => [`${bin.lower.toFixed(2)} to ${bin.upper.toFixed(2)}`, bin.count, bin.confidence, bin.accuracy]), "Reliability bins"],
  });
}

function counts(one) {
  return chart({
    title: "Rows by confidence", height: 160, x: { label: "confidence", ...UNIT }, y: { label: "rows", min: 0 },
    told: "How many rows stand behind each bin: a bin of few rows says little.",
    marks: [{ kind: "steps", filled: true, color: "own", x: [...one.bins.map((bin) => bin.lower), 1], y: one.bins.map((bin) => bin.count) }],
  });
}

function pit(one) {
  const total = one.pit.reduce((sum, count) => sum + count, 0);
  return chart({
    title: "How often each quantile was met", height: 180, x: { label: "predicted share below the target", ...UNIT }, y: { label: "density", min: 0 },
    told: "Flat where the predicted distribution is right, a cup where it is too narrow, a hill where it is too wide.",
    marks: [{ kind: "steps", filled: true, color: "own", x: one.pit.map((_, place) => place / one.pit.length).concat(1), y: one.pit.map((count) => (count / total) * one.pit.length) },
      { kind: "line", color: "quiet", dashed: true, x: [0, 1], y: [1, 1] }],
  });
}

function lines(name, curves, { title, told, xLabel, yLabel, yMin, yMax, extra = [] }) {
  const drawn = Object.entries(curves).filter(([, one]) => one[name]);
  const after = drawn.at(-1)[1][name];
  const every = Math.max(1, Math.ceil(after.x.length / 12));
  return chart({
    title, told, x: { label: xLabel, ...UNIT }, y: { label: yLabel, min: yMin, max: yMax },
    marks: [...extra, ...drawn.map(([heading, one]) => ({ kind: "line", label: heading, ...LOOKS[heading], x: one[name].x, y: one[name].y }))],
    numbers: [[xLabel, yLabel], after.x.map((x, place) => [x.toFixed(3), after.y[place]]).filter((_, place) => place % every === 0), title],
  });
}

function scores(one) {
  const shares = (list) => { const total = list.reduce((sum, count) => sum + count, 0) || 1; return list.map((count) => count / total); };
  const name = one.name.replaceAll("_", " ");
  return chart({
    title: "Score of the flag", x: { label: name, min: one.edges[0], max: one.edges.at(-1), log: one.is_log }, y: { label: "share of rows", min: 0 },
    told: "Scores of the held-out rows, of out-of-distribution rows where they were given, and the threshold of the flag. The outermost bins hold what lies beyond them too.",
    marks: [
      { kind: "steps", label: "labelled rows", filled: true, color: "own", x: one.edges, y: shares(one.counts) },
      ...(one.ood_counts ? [{ kind: "steps", label: "out-of-distribution rows", dashed: true, color: "strange", x: one.edges, y: shares(one.ood_counts) }] : []),
      ...(one.threshold === null ? [] : [{ kind: "rule", label: "threshold", color: "ink", x: [one.threshold] }]),
    ],
    numbers: [[`${name} from`, "rows"], one.counts.map((count, place) => [one.edges[place].toPrecision(3), count]), "Scores of held-out rows"],
  });
}
