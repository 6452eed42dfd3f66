"""Read request bodies and check their media type and size."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.types import Receive, Scope

from service.problems import TooLarge, UnsupportedMedia, quoted
from service.settings import Settings, variable
from service.wire.text import Body

State = Mapping[str, Any]
"""The state of a request, with its headers, its hold and its stages."""


class ClientGone(Exception):
    """The client has left, so there is nobody to answer."""


async def receive_all(scope: Scope, receive: Receive, settings: Settings) -> Body:
    """Return the body of a JSON request, still in its content coding, and accept the request.

    Raises:
        UnsupportedMedia: it is not JSON.
        TooLarge: it is longer than the limit, or declares to be.
        Busy: there is no room for it now.
        ClientGone: the client left before the body was complete.
    """
    headers: Mapping[bytes, bytes] = scope["state"]["headers"]
    _refuse_other_media(headers)
    limit, state = settings.max_body_bytes, scope["state"]
    declared = headers.get(b"content-length", b"").decode("latin-1")
    length = int(declared) if declared.isdecimal() else None
    if length is not None and length > limit:
        raise too_large(declared, limit)
    chunk, more = await _receive(receive, state)
    body: Body = chunk
    if more and length is None:
        body = await _join(chunk, limit, receive, state)
    elif more and len(chunk) != length:
        body = await _fill(chunk, length or 0, receive, state)
    elif len(body) > limit:
        raise too_large(str(len(body)), limit)
    state["hold"].accept()
    return body


async def _fill(chunk: bytes, length: int, receive: Receive, state: State) -> memoryview:
    """Return a body of known length. Its pages are allocated as it arrives."""
    body = np.empty(length, np.uint8).data
    filled, more = 0, True
    while chunk or more:
        body[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
        chunk, more = await _receive(receive, state) if more else (b"", False)
    return body[:filled]


async def _join(chunk: bytes, limit: int, receive: Receive, state: State) -> bytearray:
    """Return a body of unknown length; it grows in place because joining chunks at the end would take long."""
    body = bytearray(chunk)
    more = True
    while more:
        chunk, more = await _receive(receive, state)
        body.extend(chunk)
        if len(body) > limit:
            raise too_large(f"at least {len(body)}" if more else str(len(body)), limit)
    return body


async def _receive(receive: Receive, state: State) -> tuple[bytes, bool]:
    """Receive and account for the next chunk; return it and whether there are more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    chunk = message.get("body", b"")
    state["stages"].bytes_in += len(chunk)
    if chunk:
        state["hold"].take(len(chunk))
    return chunk, message.get("more_body", False)


async def read_into(buffer: bytearray, scope: Scope, receive: Receive, settings: Settings) -> None:
    """Append the body of a request to a buffer, in any format, and accept the request; each byte is copied once.

    Raises:
        TooLarge: it is longer than the limit, or declares to be.
        Busy: there is no room for it now.
        ClientGone: the client left before the body was complete.
    """
    limit, before, more = settings.max_body_bytes, len(buffer), True
    declared = scope["state"]["headers"].get(b"content-length", b"").decode("latin-1")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(declared, limit)
    while more:
        chunk, more = await _receive(receive, scope["state"])
        buffer += chunk
        if (length := len(buffer) - before) > limit:
            raise too_large(f"at least {length}" if more else str(length), limit)
    scope["state"]["hold"].accept()


def _refuse_other_media(headers: Mapping[bytes, bytes]) -> None:
    """Refuse content types other than JSON. A missing type is taken for JSON."""
    declared = headers.get(b"content-type", b"application/json")
    if declared == b"application/json":
        return
    written = declared.decode("latin-1")
    media, *parameters = (part.strip().lower() for part in written.split(";"))
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Expected Content-Type: application/json in UTF-8; got {quoted(written)}.")


def too_large(size: str, limit: int) -> TooLarge:
    """Return the problem of a body over the limit."""
    name = variable("max_body_bytes")
    return TooLarge(f"Expected a body of at most {limit} bytes ({name}); got {size}.")
