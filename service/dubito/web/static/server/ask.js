// Asks the API. A refusal is an error whose message is the server's own sentence.

import { askForKey, forget, key } from "./key.js";

const WANTED = "This server shows its data to holders of a key. It is kept in this tab alone, until you close it.";
const UNKNOWN = "The server does not know that key: it may be mistyped, or revoked.";

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The response to a request, once a key was given where one is wanted. */
export async function send(path, options = {}) {
  if ("wantsKey" in document.documentElement.dataset && !key()) await given(WANTED, options);
  for (;;) {
    const headers = new Headers(options.headers);
    const known = key();
    if (known) headers.set("Authorization", `Bearer ${known}`);
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.status !== 401) return checked(response);
    if (known === key()) {  // nobody has given another meanwhile
      forget();
      await given(known ? UNKNOWN : WANTED, options);
    }
  }
}

async function given(reason, options) {
  if (!(await askForKey(reason))) throw new Refused(401, "No key was given: choose a part above to be asked again.");
  options.signal?.throwIfAborted();
}

/** What a path answers, as JSON. */
export async function ask(path, options) {
  return (await send(path, options)).json();
}

/** Send JSON, and read JSON. */
export function tell(path, value, options = {}) {
  const headers = { "Content-Type": "application/json", ...options.headers };
  return ask(path, { method: "POST", ...options, headers, body: JSON.stringify(value) });
}

/** The path of a version's action; without a version the alias `default` is meant. */
export function action(model, version, name) {
  const middle = version ? `/versions/${encodeURIComponent(version)}` : "";
  return `v1/models/${encodeURIComponent(model)}${middle}/${name}`;
}

async function checked(response) {
  if (response.ok) return response;
  let detail = `${response.status} ${response.statusText}`;
  try {
    const told = await response.json();
    const fields = (told.fields ?? []).map((field) => `${field.path}: ${field.message}`);
    detail = fields.length ? fields.join("; ") : told.detail ?? detail;
  } catch { /* a proxy's page: the status says enough */ }
  const wait = response.headers.get("Retry-After");
  throw new Refused(response.status, wait ? `${detail} (again in ${wait} s)` : detail);
}
