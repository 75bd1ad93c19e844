// A pad to draw a digit on, made into 8 x 8 grey levels as the demonstration's scans were: the ink's
// box, scaled to 32 x 32 points, and how many of each 4 x 4 are ink.

import { make } from "../dom.js";

const SIZE = 256;
const FINE = 32;
const COARSE = 8;
const PEN = 38;
const STROKES = {
  4: [[[0.5, 0.1], [0.25, 0.6], [0.75, 0.6]], [[0.62, 0.4], [0.58, 0.95]]],
  7: [[[0.3, 0.2], [0.45, 0.12], [0.7, 0.12], [0.68, 0.3], [0.5, 0.6], [0.42, 0.92]], [[0.3, 0.52], [0.72, 0.5]]],
};

/** The pad: `{element, row()}`; `changed` is called whenever the ink is another. */
export function pad(changed) {
  const canvas = make("canvas", { class: "pad", width: SIZE, height: SIZE, tabindex: "0", role: "img",
    "aria-label": "Drawing pad. Draw with the pointer; or move the pen with the arrow keys while you hold Shift, and without Shift to move it without ink." });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pen = { x: SIZE / 2, y: SIZE / 4 };
  let noise = null;

  function clear() {
    noise = null;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIZE, SIZE);
  }
  function line(from, to) {
    if (noise) clear();
    context.strokeStyle = "#000";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }
  function at(event) {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * SIZE, y: ((event.clientY - box.top) / box.height) * SIZE };
  }
  function example(digit) {
    clear();
    for (const stroke of STROKES[digit]) {
      stroke.slice(1).forEach(([x, y], place) =>
        line({ x: stroke[place][0] * SIZE, y: stroke[place][1] * SIZE }, { x: x * SIZE, y: y * SIZE }));
    }
    changed();
  }
  function makeNoise() {
    clear();
    const random = numbers(7);
    noise = Array.from({ length: COARSE * COARSE }, () => Math.round(16 * random()) / 16);
    const cell = SIZE / COARSE;
    noise.forEach((value, place) => {
      const grey = Math.round(255 * (1 - value));
      context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
      context.fillRect((place % COARSE) * cell, Math.floor(place / COARSE) * cell, cell, cell);
    });
    changed();
  }

  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const now = at(event);
    line(last, now);
    last = now;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { if (last) { last = null; changed(); } });
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-16, 0], ArrowRight: [16, 0], ArrowUp: [0, -16], ArrowDown: [0, 16] }[event.key];
    if (!step) return;
    event.preventDefault();
    const before = { ...pen };
    pen.x = Math.min(SIZE - 16, Math.max(16, pen.x + step[0]));
    pen.y = Math.min(SIZE - 16, Math.max(16, pen.y + step[1]));
    if (event.shiftKey) {
      line(before, pen);
      changed();
    }
  });
  clear();

  const button = (text, act) => make("button", { type: "button", onclick: act }, text);
  const element = make("div", {}, canvas, make("p", { class: "row" },
    button("A four", () => example(4)), button("A seven", () => example(7)),
    button("Noise", makeNoise), button("Clear", () => { clear(); changed(); })));
  return { element, row: () => noise ?? scanned(context.getImageData(0, 0, SIZE, SIZE).data) };
}

/** 64 grey levels from 0 (paper) to 1 (ink); null where there is no ink. */
function scanned(pixels) {
  const isInk = (x, y) => pixels[4 * (y * SIZE + x)] < 128;
  let [left, right, top, bottom] = [SIZE, -1, SIZE, -1];
  for (let y = 0; y < SIZE; y += 1) {
    for (let x = 0; x < SIZE; x += 1) {
      if (!isInk(x, y)) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return null;
  const side = Math.max(right - left, bottom - top) + 1;
  const [x0, y0] = [(left + right + 1 - side) / 2, (top + bottom + 1 - side) / 2];
  const row = new Array(COARSE * COARSE).fill(0);
  for (let y = 0; y < FINE; y += 1) {
    for (let x = 0; x < FINE; x += 1) {
      const [from, down] = [Math.floor(x0 + ((x + 0.5) * side) / FINE), Math.floor(y0 + ((y + 0.5) * side) / FINE)];
      const isInside = from >= 0 && down >= 0 && from < SIZE && down < SIZE;
      if (isInside && isInk(from, down)) row[COARSE * Math.floor(y / 4) + Math.floor(x / 4)] += 1 / 16;
    }
  }
  return row;
}

/** Numbers in [0, 1) that are the same every time: a linear congruence, good enough for noise. */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
