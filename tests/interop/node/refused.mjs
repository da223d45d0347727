// Sends a large message to a server that refuses it, with the ws package, and prints the close codes that it is told.
//
// node refused.mjs URL BYTES ROUNDS

import { createRequire } from "node:module";

const WebSocket = createRequire(process.cwd() + "/")("ws"); // installed in the working directory
const [url, bytes, rounds] = process.argv.slice(2);
const codes = [];

for (let round = 0; round < Number(rounds); round++) {
  codes.push(
    await new Promise((resolve) => {
      const socket = new WebSocket(url, { perMessageDeflate: false });
      socket.on("open", () => socket.send(Buffer.alloc(Number(bytes))));
      socket.on("error", () => {}); // "close" follows
      socket.on("close", resolve);
    }),
  );
}
console.log(JSON.stringify(codes));
