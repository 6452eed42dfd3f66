"""Cacheable answers: compressed on request, with a tag, and a 304 for clients that have them already."""

import gzip
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from starlette.requests import Request
from starlette.responses import Response

from service.admission import codings

CODED = "-gzip"
"""Suffix of the tags of compressed answers."""


@dataclass(frozen=True)
class Content:
    """A body and its media type, with its tag and compressed form."""

    body: bytes
    media: str = "application/json"

    @cached_property
    def tag(self) -> str:
        """A hash of the body."""
        return blake2b(self.body, digest_size=16).hexdigest()

    @cached_property
    def compressed(self) -> bytes:
        """The body in gzip."""
        return gzip.compress(self.body, 6, mtime=0)


def cacheable(request: Request, content: Content, cache: str = "no-cache") -> Response:
    """Return the answer to a GET or HEAD, a 304 if the client has it."""
    compress = len(content.body) > codings.SHORT and codings.for_answer(request.state.headers) == "gzip"
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
    """Return whether a client's ``If-None-Match`` contains a tag, with or without the suffix."""
    sent = (one.strip().removeprefix("W/").strip('"') for one in tags.split(","))
    return any(one == "*" or one.removesuffix(CODED) == tag for one in sent)
