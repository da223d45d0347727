"""The application for uvicorn and other ASGI servers: FastAPI, Starlette, Django Channels, and a view."""

import django
from app import PAGE
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import re_path
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import Mount, WebSocketRoute

from duck.contrib.websockets import WebSocketView

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()


# Starlette


class Echo(WebSocketEndpoint):
    encoding = "bytes"

    async def on_connect(self, websocket):
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=offered[-1] if offered else None, headers=[(b"x-served-by", b"starlette")])

    async def on_receive(self, websocket, data):
        if data == b"close":
            await websocket.close(4001, "as asked")
        else:
            await websocket.send_bytes(data)

    async def on_disconnect(self, websocket, close_code):
        endings[websocket.path_params["name"]] = close_code


starlette = Starlette(routes=[WebSocketRoute("/echo/{name}", Echo)])


# Django Channels


class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.name = self.scope["url_route"]["kwargs"]["name"]
        await self.channel_layer.group_add("everybody", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("everybody", self.channel_name)
        endings[self.name] = code

    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close(4001, "as asked")
        elif text_data is not None and text_data.startswith("all: "):
            await self.channel_layer.group_send("everybody", {"type": "said", "text": text_data})
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def said(self, event):
        await self.send(text_data=event["text"])


channels = URLRouter([re_path(r"echo/(?P<name>\w+)$", Consumer.as_asgi())])


# A view


class EchoView(WebSocketView):
    MAX_FRAME_SIZE = 16 * 1024 * 1024

    async def on_receive(self, message, opcode):
        if message == b"close":
            await self.send_close(4001, "as asked")
        elif message == b"against the policy":
            await self.send_close(1008)
        elif message == b"fail":
            raise ValueError("as the test expects")
        else:
            await self.send(message, opcode)

    async def on_close(self, frame=None):
        endings[self.kwargs["name"]] = self.close_code


# FastAPI

app = FastAPI()
endings: dict[str, int | None] = {}
everybody: set[WebSocket] = set()


@app.get("/")
async def page():
    return HTMLResponse(PAGE)


@app.get("/ending/{name}")
async def ending(name: str):
    return endings.get(name)


@app.websocket("/fastapi/echo/{name}")
async def echo(websocket: WebSocket, name: str):
    await websocket.accept()
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event["code"])
            if event.get("text") == "close":
                await websocket.close(4001, "as asked")
                return
            await websocket.send({**event, "type": "websocket.send"})
    except WebSocketDisconnect as error:
        endings[name] = error.code


@app.websocket("/fastapi/chat")
async def chat(websocket: WebSocket):
    await websocket.accept()
    everybody.add(websocket)
    try:
        async for said in websocket.iter_json():
            for member in everybody:
                await member.send_json({"said": said})
    finally:
        everybody.discard(websocket)


@app.websocket("/fastapi/closed")
async def closed(websocket: WebSocket):
    await websocket.close()


@app.websocket("/fastapi/denied")
async def denied(websocket: WebSocket):
    raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Basic"})


@app.websocket("/fastapi/fails")
async def fails(websocket: WebSocket):
    await websocket.accept()
    await websocket.receive()
    raise ValueError("as the test expects")


app.router.routes += [
    WebSocketRoute("/view/echo/{name}", EchoView.as_asgi()),
    Mount("/starlette", starlette),
    Mount("/channels", channels),
]
