"""picows, its core API: callbacks that are handed frames.

It brings its own transports, those of aiofastnet, unless the variant is "native-transports".
"""

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from .options import BACKLOG, HEARTBEAT, HOST, MAX_SIZE, Options

__all__ = ["run"]


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


everyone: set[WSTransport] = set()


class Broadcast(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        everyone.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            payload = frame.get_payload_as_memoryview()
            for receiver in everyone:
                receiver.send(frame.msg_type, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        everyone.discard(transport)


def route(request: WSUpgradeRequest) -> WSListener:
    return Broadcast() if request.path == b"/broadcast" else Echo()


async def main(options: Options) -> None:
    server = await ws_create_server(
        route,
        HOST,
        options.port,
        backlog=BACKLOG,
        ssl=options.ssl_context(),
        max_frame_size=MAX_SIZE,
        enable_auto_ping=options.heartbeat,
        auto_ping_idle_timeout=HEARTBEAT,
        use_aiofastnet=options.variant != "native-transports",
    )
    await server.serve_forever()


def run(options: Options) -> None:
    options.run(main(options))
