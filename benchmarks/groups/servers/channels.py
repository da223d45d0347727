"""Django Channels with a layer of channels_redis, which CHANNEL_LAYER names."""

import os
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

__all__ = ["app"]

settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": os.environ["CHANNEL_LAYER"], "CONFIG": {"hosts": [os.environ["REDIS_URL"]]}}}
)


class Chat(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("everyone", self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("everyone", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("everyone", self.channel_name)


app = Chat.as_asgi()
