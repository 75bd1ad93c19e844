// What a prediction says, in words: what to do first, why next.

import { number, percent } from "../dom.js";

/** Names in a row: "4, 7 and 9". */
export function listed(names, last = "and") {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${last} ${names.at(-1)}`;
}

const RIVAL = 0.1; // probability from which another class is named

/** The likeliest class and its rivals with their probabilities, likeliest first; none without a rival. */
export function rivals(classes, probabilities) {
  const ranked = classes.map((name, index) => [name, probabilities[index]]).sort((one, other) => other[1] - one[1]);
  const named = ranked.filter(([, probability], rank) => rank === 0 || probability >= RIVAL);
  return named.length > 1 ? named.map(([name, probability]) => `${name} (${percent(probability)})`) : [];
}

/** One sentence or two on a row: {decision, label, set, flag, pValue, interval, open}, `open` as `rivals` names them. */
export function advice({ decision, label, set, flag, pValue, interval, open = [] }) {
  if (decision === null || decision === undefined) {
    return "No calibration covers this request, so nothing is promised: the figures are the network's own.";
  }
  if (flag) {
    return `It has not seen the like: of the rows it was calibrated on, ${percent(pValue)} looked as strange or stranger. Do not act on the answer; ask somebody.`;
  }
  if (set?.length > 1) return `It ${set.length > 3 ? `leaves ${set.length} classes open: ${listed(set, "or")}` : `cannot tell ${listed(set, "from")}`}; ask somebody.`;
  if (decision === "review" && open.length) return `It cannot tell ${listed(open, "from")}; ask somebody.`;
  if (decision === "review") return `It is too unsure of ${label ?? "this"} to be taken at its word; ask somebody.`;
  if (interval) return `The truth lies between ${number(interval[0])} and ${number(interval[1])}, as far as it was promised; it can be acted on.`;
  return `It says ${label}, and leaves nothing else open; it can be acted on.`;
}

const LITTLE = { nats: 0.05 };

/** Where the doubt comes from: `own` of `total` is the network's own, the rest the data's. */
export function origin(own, total, unit) {
  if (!(total > 0) || total < LITTLE[unit]) return "There is next to no doubt, so its parts say little.";
  const share = Math.min(1, Math.max(0, own / total));
  const first = `${percent(share)} of the doubt is the network's own`;
  if (share > 0.6) return `${first}: its thinned networks disagree, and more rows like this one in training would help.`;
  if (share < 0.25) return `${first}: its thinned networks agree on how uncertain this row is in itself, and more data would help little.`;
  return `${first}; the rest lies in the row itself.`;
}
