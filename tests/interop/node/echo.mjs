// An echo server of Node's ws: prints its port, and ends with its input.
import { createRequire } from "node:module";

const { WebSocketServer } = createRequire(process.cwd() + "/")("ws"); // installed in the working directory
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 } });
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
process.stdin.on("end", () => process.exit()).resume();
