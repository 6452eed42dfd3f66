"""Read request bodies: their format, their coding, their size."""

from collections.abc import Mapping

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
    headers: dict[bytes, bytes] = dict(scope["headers"])
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
    _refuse_declared_length(dict(scope["headers"]), limit)
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
    declared: bytes = dict(scope["headers"]).get(b"content-type", b"")
    return declared.decode("latin-1").partition(";")[0].strip().lower()


def _refuse_other_media(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a content type that is not JSON, and any content coding. A missing type is taken for JSON."""
    declared = headers.get(b"content-type", b"application/json")
    if declared == b"application/json" and b"content-encoding" not in headers:
        return
    written = declared.decode("latin-1")
    media, *parameters = (part.strip().lower() for part in written.split(";"))
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Expected Content-Type: application/json in UTF-8; got {quoted(written)}.")
    coding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMedia(f"Expected a body without Content-Encoding; got {quoted(coding)}.")


def _refuse_declared_length(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse a body that says it will be longer than the limit."""
    declared = headers.get(b"content-length", b"").decode("latin-1")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(declared, limit)


def too_large(size: str, limit: int) -> TooLarge:
    """Return the problem of a body over the limit."""
    name = variable("max_body_bytes")
    return TooLarge(f"Expected a body of at most {limit} bytes ({name}); got {size}.")
