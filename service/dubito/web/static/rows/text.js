// Rows that were typed or pasted: JSON, or a row in each line, of numbers or of words.

/** The rows of a text; `shape` is that of one row, `kinds` what the bundle declares of inputs. */
export function rowsOf(text, { shape, kinds }) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error("There are no rows yet: paste numbers, drop a file, or draw.");
  if (/^[[{"]/.test(trimmed)) return fromJson(trimmed);
  if (kinds.includes("text")) return trimmed.split("\n").filter((line) => line.trim());
  const size = shape.reduce((product, length) => product * length, 1);
  return trimmed.split("\n").filter((line) => line.trim()).map((line, place) => {
    const numbers = line.trim().split(/[\s,;]+/).filter(Boolean).map(Number);
    if (numbers.some(Number.isNaN)) throw new Error(`Line ${place + 1}: expected numbers with spaces or commas between them, got ${JSON.stringify(line.slice(0, 40))}.`);
    if (numbers.length !== size) throw new Error(`Line ${place + 1}: expected ${size} numbers, got ${numbers.length}.`);
    return shaped(numbers, shape);
  });
}

function fromJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This begins like JSON, but is none: ${error.message}.`);
  }
  const rows = value?.inputs ?? value;
  return Array.isArray(rows) && rows.length && typeof rows[0] === "number" ? [rows] : rows;
}

/** Numbers in a row as nested lists of a shape. */
export function shaped(numbers, shape) {
  if (shape.length === 0) return numbers[0];
  if (shape.length === 1) return Array.from(numbers);
  const step = numbers.length / shape[0];
  return Array.from({ length: shape[0] }, (_, place) => shaped(numbers.slice(place * step, (place + 1) * step), shape.slice(1)));
}
