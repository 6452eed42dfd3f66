"""Watches the messages between a client and the application: their bytes, the status, the end."""

from starlette.types import Message, Receive, Send

from service.telemetry.finished import CLIENT_GONE
from service.telemetry.stages import Stages


class Watch:
    """Wraps ``receive`` and ``send``, and adds the common headers to every answer."""

    __slots__ = (
        "_receive",
        "_send",
        "_stages",
        "bytes_in",
        "bytes_out",
        "finished",
        "started",
        "status",
    )

    def __init__(self, receive: Receive, send: Send, stages: Stages) -> None:
        self._receive = receive
        self._send = send
        self._stages = stages
        self.bytes_in = self.bytes_out = 0
        self.status = CLIENT_GONE
        self.started = self.finished = False

    async def receive(self) -> Message:
        """Receive, counting the bytes of the body."""
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Send, noting the status, the bytes and the end."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._stages.request_id.encode()),
                (b"server-timing", self._stages.header()),
            ]
        else:
            self.bytes_out += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        await self._send(message)
