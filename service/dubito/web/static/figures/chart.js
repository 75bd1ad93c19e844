// One picture, drawn by uPlot: marks over two axes, a legend, a caption, and the same as numbers.
//
// A mark is {kind, label, x, y, color}: `line` (dashed?), `dots`, `bars` (width), `steps` (a
// histogram by its edges, one more than values), `whiskers` (from low to high), or `rule` (x).

import { make, table } from "../dom.js";
import { color, faded, onTheme } from "./theme.js";

const MISSING = "Pictures are missing: this installation was built without uPlot, the library that draws them. Install a built wheel of Dubito, or Node.js with npm, and then run scripts/hatch_build.py. The numbers are here.";

/** A figure: {title, told, x: {label, min, max, log, names}, y: {...}, marks, height, numbers}. */
export function chart(spec) {
  const drawn = make("div", { class: "drawn", role: "img", "aria-label": `${spec.title}. ${spec.summary ?? spec.told ?? ""}` });
  const hasLibrary = typeof globalThis.uPlot === "function";
  const figure = make("figure", {},
    make("h3", {}, spec.title),
    spec.marks.filter((mark) => mark.label).length > 1 ? legend(spec.marks) : null,
    hasLibrary ? drawn : make("p", { class: "warnings missing" }, MISSING),
    spec.told ? make("figcaption", {}, spec.told) : null,
    spec.numbers ? make("details", { open: !hasLibrary }, make("summary", {}, "As numbers"), table(...spec.numbers)) : null);
  if (hasLibrary) keepDrawn(drawn, spec);
  return figure;
}

/** Draw once there is room, again at another width or in other colours. */
function keepDrawn(drawn, spec) {
  let plot = null;
  let width = 0;
  const draw = () => {
    plot?.destroy();
    plot = width > 0 ? plotted(drawn, spec, width) : null;
  };
  const watch = new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now !== width) {
      width = now;
      draw();
    }
  });
  watch.observe(drawn);
  onTheme(drawn, draw);
}

function plotted(place, spec, width) {
  const marks = spec.marks.filter((mark) => mark.x.length);
  const tables = marks.filter((mark) => !isDrawnByHand(mark));
  const data = tables.length
    ? globalThis.uPlot.join(tables.map((mark) => [closed(mark).x, closed(mark).y]))
    : [[spec.x.min, spec.x.max], [null, null]];
  return new globalThis.uPlot({
    width,
    height: spec.height ?? 260,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: scale(spec.x), y: scale(spec.y) },
    axes: [axis(spec.x, 42), axis(spec.y, 54)],
    series: [{}, ...(tables.length ? tables.map(series) : [{ show: false }])],
    hooks: { draw: [(plot) => marks.filter(isDrawnByHand).forEach((mark) => byHand(plot, mark))] },
  }, data, place);
}

const isDrawnByHand = (mark) => mark.kind === "whiskers" || mark.kind === "rule";

/** A histogram as points: the last value goes on to the last edge. */
function closed(mark) {
  return mark.kind === "steps" ? { x: mark.x, y: [...mark.y, mark.y.at(-1)] } : mark;
}

function scale({ min, max, log }) {
  const range = (plot, low, high) => {
    if (log) return [min ?? low, max ?? high];
    const space = high > low ? 0.05 * (high - low) : 1;
    return [min ?? low - space, max ?? high + space];
  };
  return { time: false, distr: log ? 3 : 1, range };
}

function axis(side, size) {
  const named = side.names && {
    splits: () => side.names.map((_, place) => place),
    values: () => side.names,
  };
  return {
    stroke: color("ink"),
    grid: { stroke: color("faint"), width: 0.5, show: !side.names },
    ticks: { stroke: color("faint"), width: 1 },
    label: side.label,
    labelSize: 20,
    size,
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    ...named,
  };
}

function series(mark) {
  const { paths } = globalThis.uPlot;
  const base = { stroke: color(mark.color), width: 1.8, points: { show: false }, spanGaps: true };
  if (mark.kind === "dots") {
    const fill = faded(mark.color, mark.opacity ?? 0.55);
    return { ...base, paths: () => null, points: { show: true, size: mark.size ?? 5, fill, stroke: fill, width: 0 } };
  }
  if (mark.kind === "bars") {
    return { ...base, fill: color("fill"), paths: paths.bars({ size: [mark.width ?? 0.7, 60] }) };
  }
  if (mark.kind === "steps") {
    return { ...base, fill: mark.filled ? color("fill") : undefined, dash: mark.dashed ? [5, 4] : undefined, paths: paths.stepped({ align: 1 }) };
  }
  return {
    ...base,
    dash: mark.dashed ? [5, 4] : undefined,
    points: mark.dotted ? { show: true, size: 6, fill: color(mark.color) } : { show: false },
  };
}

function byHand(plot, mark) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  ctx.strokeStyle = color(mark.color);
  ctx.lineWidth = (mark.thick ?? 1.6) * devicePixelRatio;
  mark.x.forEach((value, place) => {
    const x = plot.valToPos(value, "x", true);
    ctx.moveTo(x, mark.kind === "rule" ? bbox.top : plot.valToPos(mark.low[place], "y", true));
    ctx.lineTo(x, mark.kind === "rule" ? bbox.top + bbox.height : plot.valToPos(mark.high[place], "y", true));
  });
  ctx.stroke();
  ctx.restore();
}

/** What each mark is; drawn as SVG, so that it follows the colours of the page by itself. */
function legend(marks) {
  return make("ul", { class: "legend" }, marks.filter((mark) => mark.label).map((mark) =>
    make("li", {}, sign(mark), mark.label)));
}

function sign(mark) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 32 14");
  svg.setAttribute("aria-hidden", "true");
  const isDot = mark.kind === "dots";
  const shape = document.createElementNS(space, isDot ? "circle" : "path");
  const upright = isDrawnByHand(mark);
  const attributes = isDot
    ? { cx: 16, cy: 7, r: 4, fill: `var(--${mark.color})` }
    : { d: upright ? "M16 0V14" : "M1 7H31", stroke: `var(--${mark.color})`, "stroke-width": 3, "stroke-dasharray": mark.dashed ? "6 4" : "none" };
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
  svg.append(shape);
  return svg;
}
