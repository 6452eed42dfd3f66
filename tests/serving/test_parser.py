"""Bytes are cut into requests in one way, however they arrive, and never into more than were sent."""

from dataclasses import dataclass, field

import pytest

from service.serving.parser import TURN, Head, Malformed, Oversized, RequestParser

MOST = 4096


@dataclass
class Seen:
    """Collects the parser's events for each request."""

    heads: list[Head] = field(default_factory=list[Head])
    bodies: list[bytes] = field(default_factory=list[bytes])
    ends: int = 0

    def on_head(self, head: Head) -> None:
        assert self.ends == len(self.heads)
        self.heads.append(head)
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        assert self.ends == len(self.heads) - 1
        self.bodies[-1] += body

    def on_end(self) -> None:
        self.ends += 1


def parsed(*pieces: bytes, seen: Seen | None = None) -> Seen:
    """Parse all that arrives, a piece at a time."""
    seen = seen or Seen()
    parser = RequestParser(seen, MOST)
    rest = b""
    for piece in pieces:
        rest += piece
        while rest:
            rest = parser.feed(rest)
    return seen


BODY = b"GET /inner HTTP/1.1\r\n\r\n"
TOKENS = [b"h2c", b"websocket", b"TLS/1.0, HTTP/1.1", b"foo/2", b""]
CONNECTIONS = [
    b"connection: Upgrade\r\n",
    b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    b"connection: keep-alive\r\nConnection: UPGRADE\r\n",
    b"",
]
FRAMED = {
    "no body": (b"", b"", b""),
    "a length": (b"content-length: %d\r\n" % len(BODY), BODY, BODY),
    "chunks": (
        b"transfer-encoding: chunked\r\n",
        b"3;a=b\r\nabc\r\n4\r\n\r\n\r\n\r\n0\r\nx: y\r\n\r\n",
        b"abc\r\n\r\n",
    ),
}


def offer(method: bytes, token: bytes, connection: bytes, framing: bytes) -> bytes:
    head = b"%s /x HTTP/1.1\r\nhost: x\r\n%supgrade: %s\r\n%s\r\n"
    return head % (method, connection, token, framing)


@pytest.mark.parametrize("framed", FRAMED)
@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"PATCH"])
def test_an_offered_upgrade_is_ignored(method: bytes, token: bytes, connection: bytes, framed: str) -> None:
    """Its request has its own body, and the one behind it is another."""
    framing, sent, body = FRAMED[framed]
    seen = parsed(
        offer(method, token, connection, framing) + sent + b"POST /y HTTP/1.1\r\ncontent-length: 2\r\n\r\nab"
    )
    assert [head.target for head in seen.heads] == [b"/x", b"/y"]
    assert [head.method for head in seen.heads] == [method.decode(), "POST"]
    assert seen.bodies == [body, b"ab"]
    assert seen.ends == 2


ROW = (
    offer(b"POST", b"h2c", CONNECTIONS[1], FRAMED["chunks"][0])
    + FRAMED["chunks"][1]
    + b"\r\nGET /a%20b?q=1 HTTP/1.1\r\nhost: x\r\nempty:\r\n\r\n"
    + offer(b"POST", b"websocket", CONNECTIONS[0], FRAMED["a length"][0])
    + BODY
    + b"POST /y HTTP/1.1\r\ncontent-length: 4\r\n\r\n\r\n\r\nGET /z HTTP/1.1\r\n\r\n"
)


def test_requests_are_the_same_however_their_bytes_are_split() -> None:
    whole = parsed(ROW)
    assert whole.bodies == [b"abc\r\n\r\n", b"", BODY, b"\r\n\r\n", b""]
    assert [head.target for head in whole.heads] == [b"/x", b"/a%20b?q=1", b"/x", b"/y", b"/z"]
    assert (b"empty", b"") in whole.heads[1].headers
    assert parsed(*(ROW[i : i + 1] for i in range(len(ROW)))) == whole
    for place in range(1, len(ROW)):
        assert parsed(ROW[:place], ROW[place:]) == whole


def test_no_more_than_one_request_is_parsed_at_a_time() -> None:
    seen = Seen()
    sent = b"GET / HTTP/1.1\r\n\r\n" * 1000
    rest = RequestParser(seen, MOST).feed(sent)
    assert (seen.ends, len(rest)) == (1, len(sent) - 18)


def test_chunks_are_parsed_a_turn_at_a_time() -> None:
    """However small they are, so that others need not wait for a packet full of them."""
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    rest = RequestParser(Seen(), MOST).feed(head + b"1\r\na\r\n" * 60_000)
    assert len(rest) > 6 * 60_000 - 2 * TURN


POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    "a length and chunks": POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks and a length": POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
    "a length and identity": POST + b"content-length: 3\r\ntransfer-encoding: identity\r\n\r\n",
    "two lengths": POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
    "a length twice": POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\n",
    "a list of lengths": POST + b"content-length: 3, 3\r\n\r\n",
    "a length with a sign": POST + b"content-length: +3\r\n\r\n",
    "a length in base 16": POST + b"content-length: 0x3\r\n\r\n",
    "a length with a space in it": POST + b"content-length: 1 2\r\n\r\n",
    "an empty length": POST + b"content-length: \r\n\r\n",
    "identity, chunked": POST + b"transfer-encoding: identity, chunked\r\n\r\n",
    "gzip, chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "chunked, identity": POST + b"transfer-encoding: chunked, identity\r\n\r\n",
    "chunked, chunked": POST + b"transfer-encoding: chunked, chunked\r\n\r\n",
    "gzip, then chunked": POST + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
    "identity": POST + b"transfer-encoding: identity\r\n\r\n",
    "xchunked": POST + b"transfer-encoding: xchunked\r\n\r\n",
    "a tab before chunked": POST + b"transfer-encoding:\x0bchunked\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
    "a folded header": POST + b"x: 1\r\n content-length: 3\r\n\r\n",
    "a space before the colon": POST + b"content-length : 3\r\n\r\n",
    "a bare LF behind a header": POST + b"x: 1\ncontent-length: 3\r\n\r\n",
    "a bare LF behind the line": b"POST / HTTP/1.1\nhost: x\n\n",
    "a bare LF behind the head": POST + b"x: 1\r\n\n",
    "a bare CR in a header": POST + b"x: 1\rcontent-length: 3\r\n\r\n",
    "a bare LF behind a chunk's size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "a bare LF behind the last chunk": CHUNKED + b"3\r\nabc\r\n0\n\n",
    "a bare LF in an extension": CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
    "a space behind a chunk's size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 behind a bare LF": b"GET /\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel with an offer": b"CONNECT x:80 HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("offers", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"], ids=["", "offers"])
@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_others_may_read_otherwise_is_refused(sent: bytes, offers: bytes) -> None:
    line, end, fields = sent.partition(b"\r\n")
    sent = line + end + offers + fields if fields else sent
    for pieces in (
        [sent + b"abc" + BODY],
        [sent, b"abc" + BODY],
        [sent[i : i + 1] for i in range(len(sent))] + [BODY],
    ):
        seen = Seen()
        with pytest.raises(Malformed):
            parsed(*pieces, seen=seen)
        assert seen.ends == 0


BEYOND = {
    "a long line": b"GET /" + b"a" * 5000,
    "a long header": POST + b"x: " + b"a" * 5000,
    "many headers": POST + b"a: b\r\n" * 1000,
    "many short headers": POST + b"a:\r\n" * 201,
    "lines before the request": b"\r\n" * 3000,
    "a long extension": CHUNKED + b"3;" + b"a" * 5000,
    "a long trailer": CHUNKED + b"3\r\nabc\r\n0\r\nx: " + b"a" * 200_000,
    "many trailers": CHUNKED + b"3\r\nabc\r\n0\r\n" + b"a: b\r\n" * 2000,
}


@pytest.mark.parametrize("step", [100, 4000, 100_000])
@pytest.mark.parametrize("sent", BEYOND.values(), ids=BEYOND)
def test_what_is_no_body_is_bounded(sent: bytes, step: int) -> None:
    with pytest.raises(Oversized):
        parsed(*(sent[i : i + step] for i in range(0, len(sent), step)))


def test_a_head_up_to_the_limit_is_parsed() -> None:
    line, rest = b"GET / HTTP/1.1\r\nx: ", b"\r\n\r\n"
    for length, fits in ((MOST, True), (MOST + 1, False)):
        sent = line + b"a" * (length - len(line) - len(rest)) + rest
        if fits:
            assert parsed(sent).ends == 1
        else:
            with pytest.raises(Oversized):
                parsed(sent)
