// Server-sent events with a key: EventSource sends no headers, so the stream is read here.

import { send } from "./ask.js";

/** Call `heard(event, data)` for each event of a stream, until it ends. */
export async function listen(path, signal, heard) {
  const response = await send(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const pieces = text.split("\n\n");
    text = pieces.pop();
    for (const piece of pieces) tellOf(piece, heard);
  }
}

function tellOf(piece, heard) {
  let event = "message";
  const data = [];
  for (const line of piece.split("\n")) {
    if (line.startsWith("event: ")) event = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  if (data.length) heard(event, JSON.parse(data.join("\n")));
}
