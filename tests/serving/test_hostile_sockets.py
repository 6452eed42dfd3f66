"""Broken, odd and rude HTTP against a real server: it is refused or answered, soon, and leaves nothing behind."""

import json
import re
import socket
import struct
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from benchmarks import servers

pytestmark = pytest.mark.server

BODY = b'{"inputs": {"predictions": [1], "targets": [3]}}'
POST = b"POST /v1/losses/mse HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SIZED = POST + b"content-length: %d\r\n" % len(BODY)
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = SIZED + b"\r\n" + BODY
PIECE = b"%x\r\n%b\r\n" % (len(BODY), BODY)
SECONDS = 10.0
"""Seconds that an answer, or the end of a connection, may take."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "log"


@pytest.fixture(scope="module")
def running(log: Path) -> Generator[servers.Server]:
    with servers.lossd(env={"LOSSD_DEVICE": "cpu"}, log=log) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_harm(running: servers.Server, log: Path) -> Generator[None]:
    """After each test the server still answers, and its log shows no bug."""
    yield
    answer = httpx.post(
        f"{running.url}/v1/losses/mse", content=BODY, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["value"]) == (200, 4)
    for line in log.read_text().splitlines():
        assert "Traceback" not in line, line
        assert json.loads(line)["level"] not in ("error", "critical"), line


@contextmanager
def connected(running: servers.Server) -> Generator[socket.socket]:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as opened:
        yield opened


def sent(running: servers.Server, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes, or has been silent for a while."""
    with connected(running) as opened:
        with suppress(OSError):
            # closed by a server that has seen enough
            opened.sendall(request)
        return everything(opened)


def everything(opened: socket.socket, silence: float = 0.4) -> bytes:
    """Return all that arrives. Where nothing does, the test fails by the time that the socket waits."""
    found = b""
    try:
        while piece := opened.recv(1 << 16):
            found += piece
            opened.settimeout(silence)
    except ConnectionResetError:
        pass
    except TimeoutError:
        assert found, "neither an answer nor the end of the connection"
    return found


def statuses(answer: bytes) -> list[int]:
    """Return the status of each answer in a row."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def answers(opened: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Return the status and the body of each of so many answers on one connection."""
    buffered = opened.makefile("rb")
    found: list[tuple[int, bytes]] = []
    for _ in range(count):
        status = int(buffered.readline().split()[1])
        length = 0
        while line := buffered.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        found.append((status, buffered.read(length)))
    return found


BROKEN: dict[str, bytes] = {
    "two lengths that differ": POST + b"content-length: 5\r\ncontent-length: 48\r\n\r\n" + BODY,
    "a length and chunks": SIZED + b"transfer-encoding: chunked\r\n\r\n" + PIECE + b"0\r\n\r\n",
    "chunks and a length": POST
    + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n"
    + PIECE
    + b"0\r\n\r\n",
    "chunked, identity": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + PIECE + b"0\r\n\r\n",
    "an unknown transfer coding": POST + b"transfer-encoding: xchunked\r\n\r\n" + PIECE + b"0\r\n\r\n",
    "a folded header": SIZED + b"x-a: 1\r\n 2\r\n\r\n" + BODY,
    "a space before the colon": POST + b"content-length : 48\r\n\r\n" + BODY,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + BODY,
    "a length with a sign": POST + b"content-length: +48\r\n\r\n" + BODY,
    "a length of words": POST + b"content-length: many\r\n\r\n" + BODY,
    "a length in base 16": POST + b"content-length: 0x30\r\n\r\n" + BODY,
    "a list of lengths": POST + b"content-length: 48, 48\r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"content-length: 18446744073709551664\r\n\r\n" + BODY,
    "a length of 400 digits": POST + b"content-length: " + b"9" * 400 + b"\r\n\r\n" + BODY,
    "a chunk of a size that is none": CHUNKED + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk of a size beyond 64 bits": CHUNKED + b"f" * 17 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk of a negative size": CHUNKED + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk of a size with a sign": CHUNKED + b"+30\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a NUL in a header": SIZED + b"x-a: \x00\r\n\r\n" + BODY,
    "a NUL in the target": b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    "a header without a name": SIZED + b": 1\r\n\r\n" + BODY,
    "a header without a colon": SIZED + b"nothing\r\n\r\n" + BODY,
    "no method": b" / HTTP/1.1\r\n\r\n",
    "an unknown method": b"BREW /v1/losses/mse HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/3.7": b"GET /healthz HTTP/3.7\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "bytes of no meaning": bytes(range(256)) * 20,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(27),
}


@pytest.mark.parametrize("request_", BROKEN.values(), ids=BROKEN)
def test_broken_http_is_refused_and_its_connection_closed(running: servers.Server, request_: bytes) -> None:
    """A request after it is not answered: it may be part of the broken one's body."""
    found = statuses(sent(running, request_ + WHOLE))
    assert len(found) <= 1 or set(found) <= {400}, found
    assert not found or 400 <= found[0] < 500, found


ODD: dict[str, tuple[bytes, set[int]]] = {
    "bare LF": (WHOLE.replace(b"\r\n", b"\n"), {200, 400}),
    "the same length twice": (SIZED + b"content-length: %d\r\n\r\n" % len(BODY) + BODY, {200, 400}),
    "trailers": (CHUNKED + PIECE + b"0\r\nx-a: 1\r\ncontent-length: 3\r\n\r\n", {200, 400}),
    "an extension of a chunk": (CHUNKED + b"%x;a=b;c\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n", {200, 400}),
    "an extension of a megabyte": (CHUNKED + b"%x;%b\r\n" % (len(BODY), b"a" * 10**6) + BODY + b"\r\n0\r\n\r\n", {200, 400, 413, 431}),
    "empty pieces": (CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", {200}),
    "an absolute target": (b"GET http://other/healthz HTTP/1.1\r\nhost: x\r\n\r\n", {200, 400, 404}),
    "an authority for a target": (b"GET x:80 HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404}),
    "an asterisk for a target": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", {200, 400, 404, 405}),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404, 405}),
    "TRACE": (b"TRACE /v1/losses HTTP/1.1\r\nhost: x\r\n\r\n", {405}),
    "OPTIONS": (b"OPTIONS /v1/losses HTTP/1.1\r\nhost: x\r\n\r\n", {405}),
    "PROPFIND": (b"PROPFIND /v1/losses HTTP/1.1\r\nhost: x\r\n\r\n", {405}),
    "HEAD of an evaluation": (b"HEAD /v1/losses/mse HTTP/1.1\r\nhost: x\r\n\r\n", {200}),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", {200, 400}),
    "no host": (WHOLE.replace(b"host: x\r\n", b""), {200, 400}),
    "two hosts": (WHOLE.replace(b"host: x\r\n", b"host: x\r\nhost: y\r\n"), {200, 400}),
    "HTTP/1.0": (WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"), {200}),
    "an unknown expectation": (SIZED + b"expect: cake\r\n\r\n" + BODY, {200, 417}),
    "a websocket": (
        b"GET /v1/losses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        {200, 400, 403, 404, 426},
    ),
    "an upgrade to h2c": (
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: \r\n\r\n",
        {200},
    ),
    "NUL in a path": (b"GET /v1/losses/%00 HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
    "dots in a path": (b"GET /v1/losses/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
    "hidden dots in a path": (b"GET /v1/losses/%2e%2e%2fhealthz HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
    "no UTF-8 in a path": (b"GET /v1/losses/%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
    "no ASCII in a path": (b"GET /v1/losses/\xc3\xa9\xff HTTP/1.1\r\nhost: x\r\n\r\n", {400, 404}),
    "half an escape in a path": (b"GET /v1/losses/%f%zz% HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
    "NUL in the path of an evaluation": (WHOLE.replace(b"mse", b"%00%0d%0a"), {404}),
    "no UTF-8 in the path of an inference": (WHOLE.replace(b"/v1/losses/mse", b"/v2/models/%ff%ed%a0%80/infer"), {404}),
    "a surrogate in the path of an evaluation": (WHOLE.replace(b"mse", b"%ed%a0%80"), {404}),
    "a query that is none": (b"GET /v1/losses?q=%ff&task=%00&&=&q HTTP/1.1\r\nhost: x\r\n\r\n", {200, 422}),
    "no ASCII in headers": (SIZED + b"x-request-id: \xff\xfe\r\nx-a: \xc3\xa9\r\naccept: \xff\r\n\r\n" + BODY, {200}),
    "no ASCII in a media type": (WHOLE.replace(b"application/json", b"application/\xff"), {415}),
    "digits that are none": (POST.replace(b"/v1/losses/mse", b"/v2/models/mse/infer") + b"inference-header-content-length: \xb2\r\ncontent-length: 2\r\n\r\n{}", {400}),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), ODD.values(), ids=ODD)
def test_odd_http_is_answered_or_refused(
    running: servers.Server, request_: bytes, expected: set[int]
) -> None:
    found = statuses(sent(running, request_))
    assert found and set(found) <= expected, found


@pytest.mark.parametrize("length", [3500, 60_000])
def test_long_paths_are_not_found(running: servers.Server, length: int) -> None:
    for method in (b"GET", b"POST"):
        request = b"%b /v1/losses/%b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % (
            method,
            b"%c3%a9" * (length // 6),
        )
        found = statuses(sent(running, request))
        assert found and set(found) <= {404, 400, 414, 431}, found


def test_who_expects_to_be_told_to_go_on_is(running: servers.Server) -> None:
    with connected(running) as opened:
        opened.sendall(SIZED + b"expect: 100-continue\r\n\r\n")
        assert opened.recv(100).startswith(b"HTTP/1.1 100 ")
        opened.sendall(BODY)
        assert answers(opened, 1)[0][0] == 200


def test_pipelined_requests_are_answered_in_their_order(running: servers.Server) -> None:
    """Those that are evaluated, those that are refused, and those that the framework answers."""
    asked: list[bytes] = []
    for number in range(40):
        body = b'{"inputs": {"predictions": [%d], "targets": [0]}}' % number
        asked += [
            POST + b"content-length: %d\r\n\r\n" % len(body) + body,
            POST.replace(b"mse", b"none%d" % number) + b"content-length: 2\r\n\r\n{}",
            b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        ]
    with connected(running) as opened:
        opened.sendall(b"".join(asked))
        found = answers(opened, len(asked))
    for number in range(40):
        evaluated, refused, alive = found[3 * number : 3 * number + 3]
        assert (evaluated[0], json.loads(evaluated[1])["value"]) == (200, number**2)
        assert (refused[0], json.loads(refused[1])["instance"]) == (404, f"/v1/losses/none{number}")
        assert alive == (200, b'{"status":"alive"}')


def test_a_body_that_was_refused_unread_is_not_taken_for_a_request(running: servers.Server) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    refused = POST.replace(b"/v1/losses/mse", b"/v1/losses/none") + b"content-length: %d\r\n\r\n" % len(inner)
    with connected(running) as opened:
        opened.sendall(refused + inner + WHOLE)
        found = statuses(everything(opened))
    assert found in ([404, 200], [404]), found


def test_half_closed_connections_come_to_an_end(running: servers.Server) -> None:
    """Who sends no more is answered, or taken for one that has left."""
    for request, expected in ((WHOLE, ([200], [])), (WHOLE[:-5], ([400], []))):
        with connected(running) as opened:
            opened.sendall(request)
            opened.shutdown(socket.SHUT_WR)
            assert statuses(everything(opened)) in expected


def test_a_bomb_is_refused(running: servers.Server) -> None:
    deflater = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300)) + deflater.flush()
    head = b"POST /v2/models/mse/infer HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    assert statuses(sent(running, head % len(bomb) + bomb)) == [413]


def test_clients_that_leave_leave_nothing_behind(running: servers.Server) -> None:
    """They connect and say nothing, reset in the middle of a body, and of an answer."""
    numbers = b"1.5," * 200_000 + b"1.5"
    large = b'{"inputs": {"predictions": [' + numbers + b'], "targets": [' + numbers + b"]}}"
    long = POST + b"content-length: %d\r\n\r\n" % len(large) + large
    stream = POST.replace(b"/v1/losses/mse", b"/v1/batch").replace(b"json", b"x-ndjson")
    rude = [
        *(b"", b"P", POST, WHOLE[:-10], CHUNKED + b"ffff\r\nabc", long[:100_000], long),
        *(WHOLE * 50, stream + b"transfer-encoding: chunked\r\n\r\n5\r\n{\n{}\n\r\n"),
    ]

    def leave(rounds: int) -> None:
        for number in range(rounds):
            with connected(running) as opened:
                opened.sendall(rude[number % len(rude)])
                # closing resets
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    leave(2 * len(rude))
    before = _settled(running)
    leave(200)
    after = _settled(running)
    assert after[0] <= before[0] + 5, "file descriptors"
    assert after[1] < before[1] + 150, "megabytes"


def test_two_thousand_connections_leave_nothing_behind(running: servers.Server) -> None:
    before = _settled(running)
    for number in range(2000):
        with connected(running) as opened:
            if number % 4 == 0:
                opened.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                assert opened.recv(12) == b"HTTP/1.1 200"
    after = _settled(running)
    assert after[0] <= before[0] + 5, "file descriptors"
    assert after[1] < before[1] + 50, "megabytes"


def _settled(running: servers.Server) -> tuple[int, float]:
    """Return how many files a server has open, and its resident megabytes, once all requests have ended."""
    process = Path(f"/proc/{running.process}")
    found = (0, 0.0)
    for _ in range(20):
        time.sleep(0.25)
        files = len(list((process / "fd").iterdir()))
        [line] = [line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS")]
        before, found = found, (files, int(line.split()[1]) / 1024)
        if before[0] == files:
            break
    return found
