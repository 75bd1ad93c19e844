// The colours of the page for a canvas, and who wants to know when they change.

const dark = matchMedia("(prefers-color-scheme: dark)");

/** A colour of the page by the name of its variable. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A colour with an opacity. */
export function faded(name, opacity) {
  return `${color(name)}${Math.round(opacity * 255).toString(16).padStart(2, "0")}`;
}

/** Call `redraw` whenever light becomes dark or dark light, as long as the element stands. */
export function onTheme(element, redraw) {
  const changed = () => (element.isConnected ? redraw() : dark.removeEventListener("change", changed));
  dark.addEventListener("change", changed);
}
