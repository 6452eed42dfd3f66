"""Read request bodies: their format, their coding, their size."""

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from service.api.waiting import ClientGone
from service.problems import TooLarge, UnsupportedMedia, quoted
from service.settings import Settings, variable


async def read(scope: Scope, receive: Receive, settings: Settings) -> bytes:
    """Return a JSON request's body.

    Raises:
        UnsupportedMedia: it is declared to be something else than JSON, or compressed.
        TooLarge: it is longer than the limit, or says that it will be.
        ClientGone: the client left before all of it was here.
    """
    headers = Headers(scope=scope)
    _refuse_other_media(headers)
    limit = settings.max_body_bytes
    _refuse_declared_length(headers, limit)
    chunks: list[bytes] = []
    length = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        more = message.get("more_body", False)
        if length > limit:
            raise too_large(f"at least {length}" if more else str(length), limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_into(buffer: bytearray, scope: Scope, receive: Receive, settings: Settings) -> None:
    """Append a request's body to a buffer, whatever its format: each byte is copied once.

    Raises:
        TooLarge: it is longer than the limit, or says that it will be.
        ClientGone: the client left before all of it was here.
    """
    limit, before, more = settings.max_body_bytes, len(buffer), True
    _refuse_declared_length(Headers(scope=scope), limit)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        buffer += message.get("body", b"")
        more = message.get("more_body", False)
        if (length := len(buffer) - before) > limit:
            raise too_large(f"at least {length}" if more else str(length), limit)


def media(scope: Scope) -> str:
    """Return the media type that a request declares."""
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


def _refuse_other_media(headers: Headers) -> None:
    """Refuse a content type that is not JSON, and any content coding. A missing type is taken for JSON."""
    declared = headers.get("content-type", "application/json")
    if declared == "application/json" and "content-encoding" not in headers:
        return
    media, *parameters = (part.strip().lower() for part in declared.split(";"))
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Expected Content-Type: application/json in UTF-8; got {quoted(declared)}.")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMedia(f"Expected a body without Content-Encoding; got {quoted(coding)}.")


def _refuse_declared_length(headers: Headers, limit: int) -> None:
    """Refuse a body that says it will be longer than the limit."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(declared, limit)


def too_large(size: str, limit: int) -> TooLarge:
    """Return the problem of a body over the limit."""
    name = variable("max_body_bytes")
    return TooLarge(f"Expected a body of at most {limit} bytes ({name}); got {size}.")
