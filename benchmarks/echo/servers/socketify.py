"""socketify: uWebSockets, in C++, which calls Python for each message."""

from typing import Any

from socketify import App, AppListenOptions, AppOptions, CompressOptions

from .options import HOST, MAX_SIZE, Options

__all__ = ["run"]

TOPIC = "everyone"


def echo(websocket: Any, message: str | bytes, opcode: Any) -> None:
    websocket.send(message, opcode)


def join(websocket: Any) -> None:
    websocket.subscribe(TOPIC)


def broadcast(websocket: Any, message: str | bytes, opcode: Any) -> None:
    websocket.publish(TOPIC, message, opcode)


def run(options: Options) -> None:
    tls = AppOptions(key_file_name=options.keyfile, cert_file_name=options.certfile) if options.certfile else None
    app = App(tls)
    behavior = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": MAX_SIZE,
        "max_backpressure": MAX_SIZE,
        "send_pings_automatically": True,
    }
    app.ws("/", {**behavior, "message": echo})
    app.ws("/broadcast", {**behavior, "open": join, "message": broadcast})
    app.listen(AppListenOptions(port=options.port, host=HOST), lambda config: None)
    app.run()
