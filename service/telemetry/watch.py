"""Watches the messages between a client and the framework: their bytes, the status, the end."""

from starlette.types import Message, Receive, Send

from service.telemetry.stages import Stages


class Watch:
    """Wraps ``receive`` and ``send``: notes what passes, and adds the common headers to every answer."""

    __slots__ = ("_receive", "_send", "_stages")

    def __init__(self, receive: Receive, send: Send, stages: Stages) -> None:
        self._receive = receive
        self._send = send
        self._stages = stages

    async def receive(self) -> Message:
        """Receive, counting the bytes of the body."""
        message = await self._receive()
        self._stages.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Send, noting the status, the bytes and the end."""
        stages = self._stages
        if message["type"] == "http.response.start":
            stages.started, stages.status = True, message["status"]
            message["headers"] = [*message.get("headers", ()), *stages.headers()]
        else:
            stages.bytes_out += len(message.get("body", b""))
            stages.finished = not message.get("more_body", False)
        await self._send(message)
