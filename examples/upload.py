"""Uploads of any size, in constant memory: run `duck serve examples/upload.py` and open the printed address."""

import hashlib
import tempfile

from duck.contrib.websockets import IncomingMessage, WebSocketView
from duck.http import HttpRequest
from duck.server import run
from duck.urls import path

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Upload</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem }
  progress { width: 100%; height: 1.5rem }
  #state { overflow-wrap: anywhere }
</style>
<h1>Upload</h1>
<input type="file" aria-label="File">
<p><progress max="1" value="0"></progress></p>
<p id="state" role="status">Choose a file.</p>
<script>
  const [input, bar, state] = ["input", "progress", "#state"].map(selector => document.querySelector(selector));

  function upload(file) {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/upload");
    socket.onopen = () => socket.send(file);  // one message, which the browser reads from the disk as it sends
    socket.onmessage = event => {
      const { received, sha256 } = JSON.parse(event.data);
      bar.value = file.size ? received / file.size : 1;
      state.textContent = sha256 ? `${received} bytes, SHA-256 ${sha256}` : `${Math.floor(100 * bar.value)} %`;
      if (sha256) socket.close();
    };
    socket.onclose = event => { if (!event.wasClean) state.textContent = "The connection was lost." };
  }

  input.onchange = () => input.files.length && upload(input.files[0]);
</script>
"""


def page(request: HttpRequest) -> str:
    return PAGE


class Upload(WebSocketView):
    """Writes each message to a file while it comes, and reports its progress."""

    MAX_STREAM_SIZE = 4 * 1024**3  # bytes

    async def on_stream(self, message: IncomingMessage) -> None:
        received = reported = 0
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as file:  # gone at the end: keep yours
            async for part in message:
                data = part if isinstance(part, bytes) else part.encode()
                file.write(data)
                digest.update(data)
                received += len(data)
                if received >= reported + 1024**2:
                    reported = received
                    await self.send_json({"received": received})
        await self.send_json({"received": received, "sha256": digest.hexdigest()})


urlpatterns = [path("/", page), path("/upload", Upload)]

if __name__ == "__main__":
    run(urlpatterns)
