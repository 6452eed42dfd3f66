"""One connection as its client sees it: one answer for each request, and nothing that is held for ever."""

import logging
import socket
import time
import tracemalloc
from contextlib import ExitStack, suppress

import pytest

from tests.serving.threaded import SECONDS, Application, all_of, connected, serving, statuses, until

CLOSE = b"connection: close\r\n"
OFFERS = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
INNER = b"GET /inner HTTP/1.1\r\nhost: x\r\n\r\n"
LARGE = 30_000_000
"""Bytes of an answer that no kernel takes at once."""


def post(path: bytes, body: bytes, headers: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
    return head % (path, headers, len(body)) + body


def get(path: bytes, headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET %b HTTP/%b\r\nhost: x\r\n%b\r\n" % (path, version, headers)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("token", [b"h2c", b"websocket", b"any/1"])
def test_an_offered_upgrade_is_ignored(token: bytes, chunked: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the body comes with the head or later, it is the request's own, and not another request."""
    app = Application()
    offering = post(b"/a", INNER, OFFERS % token)
    if chunked:
        head = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n%b\r\n" % (OFFERS % token)
        offering = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    end = offering.index(b"\r\n\r\n") + 4
    sent = offering + post(b"/b", b"2", CLOSE)
    with caplog.at_level(logging.WARNING), serving(app) as running:
        for place in (len(sent), 10, end - 2, end, end + 5, len(offering), len(offering) + 5):
            with connected(running) as opened:
                opened.sendall(sent[:place])
                if place >= end:
                    until(lambda: bool(app.asked))
                opened.sendall(sent[place:])
                found = all_of(opened)
            assert statuses(found) == [200, 200]
            assert app.asked == [("POST", "/a"), ("POST", "/b")]
            assert app.bodies == [INNER, b"2"]
            app.asked.clear()
            app.bodies.clear()
    assert not caplog.records


def test_the_body_of_a_request_that_was_answered_early_is_skipped() -> None:
    app = Application()
    with serving(app) as running, connected(running) as opened:
        opened.sendall(post(b"/early", INNER)[: -len(INNER)])
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
        opened.sendall(INNER + post(b"/b", b"2", CLOSE))
        assert statuses(all_of(opened)) == [200]
    assert app.asked == [("POST", "/early"), ("POST", "/b")]


@pytest.mark.parametrize(
    "rest",
    [b"", b"5\r\nabc", b"zz\r\n", b"3\r\nabcd\r\n" + INNER],
    ids=["stalls", "stalls later", "breaks", "breaks later"],
)
def test_a_request_that_was_answered_early_has_no_other_answer(rest: bytes) -> None:
    app = Application()
    begun = b"POST /early HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with serving(app, idle_s=1) as running, connected(running) as opened:
        opened.sendall(begun)
        found = opened.recv(1 << 16)
        opened.sendall(rest)
        found += all_of(opened)
        assert statuses(found) == [401]
    assert app.asked == [("POST", "/early")]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_last_answer_arrives_while_its_client_still_sends(version: bytes) -> None:
    """Closing at once would reset the connection, and take the answer with it."""
    with serving(Application()) as running, connected(running) as opened:
        opened.sendall(post(b"/early", bytes(4_000_000), CLOSE).replace(b"HTTP/1.1", b"HTTP/" + version, 1))
        found = bytearray()
        while piece := opened.recv(1 << 16):
            found += piece
    assert statuses(bytes(found)) == [401]


def test_requests_sent_ahead_wait_in_the_socket() -> None:
    """One is taken, and no more is read than came with it."""
    app = Application()
    app.go.clear()
    with serving(app) as running, connected(running) as opened:
        ahead = b"".join(get(b"/%04d" % number) for number in range(100_000))
        opened.sendall(ahead[: 1 << 17])
        until(lambda: app.account.bytes > 0)
        sent = (1 << 17) + _fill(opened, ahead[1 << 17 :])
        assert len(app.asked) == 1
        assert 0 < app.account.bytes < 1 << 20
        app.go.set()
        whole = sent // len(get(b"/0000"))
        found = bytearray()
        while found.count(b"HTTP/1.1 200") < min(whole, 2000):
            found += opened.recv(1 << 20)
    assert [path for _, path in app.asked[:1000]] == [f"/{number:04d}" for number in range(1000)]


def _fill(opened: socket.socket, data: bytes) -> int:
    """Send until the socket takes no more; return how much it took."""
    opened.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError):
        while sent < len(data):
            sent += opened.send(data[sent : sent + (1 << 16)])
    opened.settimeout(SECONDS)
    return sent


def test_requests_sent_ahead_take_no_more_memory_than_their_bytes() -> None:
    app = Application()
    app.go.clear()
    ahead = get(b"/") * 3_000
    with serving(app) as running, ExitStack() as stack:
        tracemalloc.start()
        try:
            for count in range(10):
                stack.enter_context(connected(running)).sendall(ahead)
                until(lambda count=count: len(app.asked) == count + 1)
            until(lambda: app.account.bytes > 0)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            app.go.set()
    assert held < 10 * 1_000_000


HELD = {
    "kept alive": get(b"/%d" % LARGE),
    "to be closed": get(b"/%d" % LARGE, CLOSE),
    "HTTP/1.0": get(b"/%d" % LARGE, version=b"1.0"),
}


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half closed"])
@pytest.mark.parametrize("request_", HELD.values(), ids=HELD)
def test_an_answer_that_nobody_reads_is_dropped(request_: bytes, half_closed: bool) -> None:
    """Until then it is on the account."""
    app = Application()
    with serving(app, idle_s=1) as running, connected(running, buffer=1 << 14) as opened:
        opened.sendall(request_)
        until(lambda: app.account.bytes >= LARGE)
        if half_closed:
            opened.shutdown(socket.SHUT_WR)
        until(lambda: app.account.holds == 0)
        assert app.account.bytes == 0
        assert len(all_of(opened)) < LARGE


def read_at(opened: socket.socket, bytes_a_second: int, app: Application) -> int:
    """Read slowly, until nothing of the answer waits in the server; return how much it was."""
    received, start = 0, time.monotonic()
    with suppress(ConnectionError):
        while app.account.holds:
            due = int((time.monotonic() - start) * bytes_a_second)
            while received < due and (piece := opened.recv(min(due - received, 1 << 16))):
                received += len(piece)
            time.sleep(0.01)
            assert time.monotonic() - start < 20
    return received


def test_a_client_that_reads_drop_by_drop_is_dropped() -> None:
    app = Application()
    with serving(app, idle_s=1) as running, connected(running, buffer=1 << 12) as opened:
        opened.sendall(get(b"/%d" % LARGE))
        until(lambda: app.account.bytes >= LARGE)
        read_at(opened, 2000, app)
        assert len(all_of(opened)) < LARGE


def test_a_client_that_is_not_done_with_an_answer_in_time_is_dropped() -> None:
    app = Application()
    with serving(app, idle_s=1, upload_s=2) as running, connected(running, buffer=1 << 14) as opened:
        opened.sendall(get(b"/%d" % LARGE))
        until(lambda: app.account.bytes >= LARGE)
        assert read_at(opened, 1_000_000, app) < LARGE / 2


def test_a_client_that_reads_on_has_all_of_an_answer() -> None:
    app = Application()
    with serving(app, idle_s=1) as running, connected(running, buffer=1 << 14) as opened:
        opened.sendall(get(b"/%d" % LARGE, CLOSE))
        until(lambda: app.account.bytes >= LARGE)
        received = read_at(opened, 5_000_000, app)
        assert received + len(all_of(opened)) > LARGE


def test_what_arrives_before_the_application_reads_it_is_on_the_account() -> None:
    app = Application()
    app.go.clear()
    body = bytes(3_000_000)
    with serving(app) as running, connected(running) as opened:
        opened.sendall(post(b"/late", body)[: -len(body) + 100_000])
        until(lambda: app.account.bytes == 100_000)
        app.go.set()
        opened.sendall(body[100_000:])
        until(lambda: app.bodies == [body])
        assert opened.recv(12) == b"HTTP/1.1 200"
        opened.setblocking(True)
        while app.account.holds:
            opened.recv(1 << 20)
        assert app.account.bytes == 0


def test_the_application_learns_that_its_client_has_left() -> None:
    app = Application()
    with serving(app) as running:
        with connected(running) as opened:
            opened.sendall(post(b"/a", bytes(10))[:-5])
            until(lambda: app.asked == [("POST", "/a")])
        until(lambda: app.left == 1 and app.account.holds == 0)


def test_servers_of_one_process_have_their_own_settings() -> None:
    with serving(Application(), max_header_bytes=500) as strict, serving(Application()) as lax:
        for running, expected in ((strict, 431), (lax, 200), (strict, 431)):
            with connected(running) as opened:
                opened.sendall(get(b"/a", b"x: " + b"a" * 1000 + b"\r\n" + CLOSE))
                assert statuses(all_of(opened)) == [expected]


def test_an_answer_without_a_length_comes_in_chunks() -> None:
    with serving(Application()) as running, connected(running) as opened:
        opened.sendall(post(b"/chunks", b"abcdef", CLOSE))
        head, _, body = all_of(opened).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"


def test_an_answer_without_a_length_ends_with_the_connection_in_http_1_0() -> None:
    with serving(Application()) as running, connected(running) as opened:
        opened.sendall(post(b"/chunks", b"abcdef").replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = all_of(opened).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"abcdef"


@pytest.mark.parametrize("path", [b"/a", b"/early"])
def test_a_body_that_waits_to_be_asked_for_is_asked_for_or_never_expected(path: bytes) -> None:
    """Bytes after an early answer may be the body or the next request: nobody can know."""
    app = Application()
    with serving(app) as running, connected(running) as opened:
        sent = post(path, INNER, b"expect: 100-continue\r\n")
        opened.sendall(sent[: -len(INNER)])
        assert opened.recv(13) == (b"HTTP/1.1 100 " if path == b"/a" else b"HTTP/1.1 401 ")
        opened.sendall(INNER + post(b"/b", b"2", CLOSE))
        found = all_of(opened)
    assert [path for _, path in app.asked] == (["/a", "/b"] if path == b"/a" else ["/early"])
    assert statuses(found) == ([200, 200] if path == b"/a" else [])


@pytest.mark.parametrize("asks", [False, True])
def test_a_connection_on_which_nothing_is_asked_is_closed(asks: bool) -> None:
    with serving(Application(), keep_alive_s=1, idle_s=1) as running, connected(running) as opened:
        if asks:
            opened.sendall(get(b"/1"))
            assert opened.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert all_of(opened) == b""


@pytest.mark.parametrize("path", [b"/3", b"/chunks"])
def test_the_answer_to_head_has_no_body(path: bytes) -> None:
    with serving(Application()) as running, connected(running) as opened:
        opened.sendall(get(path).replace(b"GET", b"HEAD") + get(b"/5", CLOSE))
        found = all_of(opened)
    assert statuses(found) == [200, 200]
    assert found.endswith(b"\r\n\r\n" + bytes(5))
    assert found.count(b"\0") == 5


def test_a_server_that_ends_finishes_what_it_has_begun() -> None:
    """Its answers close the connection; idle connections are closed at once."""
    app = Application()
    app.go.clear()
    with serving(app) as running, connected(running) as asking, connected(running) as idle:
        asking.sendall(get(b"/%d" % LARGE))
        until(lambda: len(app.asked) == 1)
        running.server.should_exit = True
        assert all_of(idle) == b""
        app.go.set()
        head, _, body = all_of(asking).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert len(body) == LARGE
