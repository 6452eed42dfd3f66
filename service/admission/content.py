"""What is read and not computed: in gzip where a client asks for it, and not again where it has it already."""

import gzip
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from starlette.requests import Request
from starlette.responses import Response

from service.admission import codings

SHORT = 1400
"""Bytes that travel in one packet, compressed or not."""
CODED = "-gzip"
"""The end of the tags of what is compressed."""


@dataclass(frozen=True)
class Content:
    """A body with its media type. What it is compressed to is kept with it."""

    body: bytes
    media: str = "application/json"

    @cached_property
    def tag(self) -> str:
        """What differs between contents."""
        return blake2b(self.body, digest_size=16).hexdigest()

    @cached_property
    def compressed(self) -> bytes:
        """The body in gzip."""
        return gzip.compress(self.body, 6, mtime=0)


def answer(request: Request, content: Content, cache: str = "no-cache") -> Response:
    """Return the answer to a GET or HEAD; a 304 where the client has what it would get."""
    compress = len(content.body) > SHORT and codings.for_answer(dict(request.headers.raw)) == "gzip"
    headers = {
        "ETag": f'"{content.tag}{CODED if compress else ""}"',
        "Cache-Control": cache,
        "Vary": "Accept-Encoding",
    }
    if _has(request.headers.get("if-none-match", ""), content.tag):
        return Response(status_code=304, headers=headers)
    if not compress:
        return Response(content.body, headers=headers, media_type=content.media)
    headers["Content-Encoding"] = "gzip"
    return Response(content.compressed, headers=headers, media_type=content.media)


def _has(tags: str, tag: str) -> bool:
    """Tell whether a client's ``If-None-Match`` has a content's tag, compressed or not."""
    sent = (one.strip().removeprefix("W/").strip('"') for one in tags.split(","))
    return any(one == "*" or one.removesuffix(CODED) == tag for one in sent)
