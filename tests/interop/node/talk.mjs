// Talks to an echo server with the ws package: sends what it reads from standard input, and prints what it gets.
//
// node talk.mjs URL, and on standard input {"options": of perMessageDeflate, "messages": [{"text"} or {"base64"}, ...]}

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const WebSocket = createRequire(process.cwd() + "/")("ws"); // installed in the working directory
const { options, messages } = JSON.parse(readFileSync(0, "utf8"));
const socket = new WebSocket(process.argv[2], { perMessageDeflate: options, rejectUnauthorized: false });
const received = [];
let extensions;

socket.on("upgrade", (response) => {
  extensions = response.headers["sec-websocket-extensions"];
});

socket.on("open", () => {
  for (const message of messages) {
    if ("text" in message) socket.send(message.text);
    else {
      // In two fragments.
      const payload = Buffer.from(message.base64, "base64");
      const half = payload.length >> 1;
      socket.send(payload.subarray(0, half), { fin: false, binary: true });
      socket.send(payload.subarray(half), { fin: true, binary: true });
    }
  }
});
socket.on("message", (payload, isBinary) => {
  received.push(isBinary ? { base64: payload.toString("base64") } : { text: payload.toString() });
  if (received.length === messages.length) socket.close(1000);
});
socket.on("close", (code) => {
  console.log(JSON.stringify({ extensions, received, code }));
});
