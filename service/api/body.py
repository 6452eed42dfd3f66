"""Read request bodies: their format, their coding, their size."""

from starlette.requests import ClientDisconnect, Request

from service.problems import TooLarge, UnsupportedMedia, quoted
from service.settings import Settings, variable


async def read(request: Request, settings: Settings) -> bytes:
    """Return a JSON request's body.

    Raises:
        UnsupportedMedia: it is declared to be something else than JSON, or compressed.
        TooLarge: it is longer than the limit, or says that it will be.
    """
    _refuse_other_media(request)
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(declared, limit)
    chunks: list[bytes] = []
    length = 0
    try:
        async for chunk in request.stream():
            length += len(chunk)
            if length > limit:
                raise _too_large(f"at least {length}", limit)
            chunks.append(chunk)
    except ClientDisconnect:
        return b""
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _refuse_other_media(request: Request) -> None:
    """Refuse a content type that is not JSON, and any content coding. A missing type is taken for JSON."""
    declared = request.headers.get("content-type", "application/json")
    media, *parameters = (part.strip().lower() for part in declared.split(";"))
    charset = next((p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"Expected Content-Type: application/json in UTF-8; got {quoted(declared)}.")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMedia(f"Expected a body without Content-Encoding; got {quoted(coding)}.")


def _too_large(size: str, limit: int) -> TooLarge:
    """Return the problem of a body over the limit."""
    name = variable("max_body_bytes")
    return TooLarge(f"Expected a body of at most {limit} bytes ({name}); got {size}.")
