// `/metrics` as numbers: the text format of Prometheus, of which sums by name are enough here.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of a text: name, labels and value of each. */
export function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) labels[name] = value;
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}

/** The sum of all samples of a name whose labels have these values. */
export function sum(all, name, wanted = {}) {
  return all.filter((one) => one.name === name && Object.entries(wanted).every(([label, value]) => one.labels[label] === value))
    .reduce((total, one) => total + one.value, 0);
}
