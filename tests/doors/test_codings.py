"""Requests and answers of /v1 in gzip and deflate, with the same limits as uncompressed ones."""

import asyncio
import gzip
import json
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from service.admission.codings import Inflation
from service.app import create_app
from service.routes import STREAM
from service.settings import Settings
from tests.client import Client
from tests.doors.test_stream import ITEM, chunk, streaming
from tests.scrape import scrape, value
from tests.waiting import until, within_cpu_s

CODERS: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress}
NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
INPUTS = {"predictions": [n / 7 for n in range(2000)], "targets": [0] * 2000}
EMPTY_BLOCKS = bytes.fromhex("04c0810800000000207feb47001c880000000000f2b77e")
"""Two blocks of deflate, each a table of Huffman codes and the end of the block."""
each_coding = pytest.mark.parametrize("coding", CODERS)
PLAIN = {"accept-encoding": "identity"}


@each_coding
def test_one_call_comes_and_goes_in_a_coding(client: Client, coding: str) -> None:
    body = orjson.dumps({"inputs": INPUTS})
    plain = client.post("/v1/losses/mse", content=body, headers={**JSON, **PLAIN})
    assert "content-encoding" not in plain.headers
    headers = {**JSON, "content-encoding": coding, "accept-encoding": f"br, {coding}"}
    answer = client.post("/v1/losses/mse", content=CODERS[coding](body), headers=headers)
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (coding, "accept-encoding")
    assert answer.num_bytes_downloaded == int(answer.headers["content-length"]) < len(plain.content) / 2
    assert answer.content == plain.content


@each_coding
def test_a_batch_comes_and_goes_in_a_coding(client: Client, coding: str) -> None:
    body = orjson.dumps({"items": [orjson.loads(ITEM % (n, n)) for n in range(200)]})
    plain = client.post("/v1/batch", content=body, headers={**JSON, **PLAIN})
    headers = {**JSON, "content-encoding": coding.upper(), "accept-encoding": coding}
    answer = client.post("/v1/batch", content=CODERS[coding](body), headers=headers)
    assert answer.headers["content-encoding"] == coding
    assert answer.num_bytes_downloaded < len(plain.content) / 4
    assert answer.content == plain.content


@each_coding
def test_a_stream_comes_and_goes_in_a_coding(client: Client, coding: str) -> None:
    body = b"\n".join([*(ITEM % (n, n) for n in range(5000)), b"{", ITEM % (7, 2)])
    plain = client.post("/v1/batch", content=body, headers={**NDJSON, **PLAIN})
    coded, headers = (
        CODERS[coding](body),
        {**NDJSON, "content-encoding": coding, "accept-encoding": coding},
    )

    async def pieces() -> Any:
        for start in range(0, len(coded), 1000):
            yield coded[start : start + 1000]

    answer = client.post("/v1/batch", content=pieces(), headers=headers)
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (coding, "accept-encoding")
    assert answer.num_bytes_downloaded < len(plain.content) / 4
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        json.loads(line) for line in plain.text.splitlines()
    ]


@pytest.mark.server
def test_coded_results_leave_while_a_coded_upload_runs(server: str) -> None:
    head = b"content-encoding: gzip\r\naccept-encoding: gzip\r\n"
    coder, reader = zlib.compressobj(wbits=31), zlib.decompressobj(31)
    with streaming(server, head) as connection:
        received = b""
        for number in range(3):
            line = coder.compress(ITEM % (number, 2) + b"\n") + coder.flush(zlib.Z_SYNC_FLUSH)
            connection.sendall(chunk(line))
            found = b""
            while b'"id":%d,' % number not in found:
                received += connection.recv(65536)
                while (parted := _next_chunk(received)) is not None:
                    content, received = parted
                    found += reader.decompress(content)


def _next_chunk(received: bytes) -> tuple[bytes, bytes] | None:
    """Take a chunk, or the head, from the received bytes."""
    if received.startswith(b"HTTP/1.1"):
        head, end, rest = received.partition(b"\r\n\r\n")
        assert b"content-encoding: gzip" in head.lower()
        return (b"", rest) if end else None
    size, end, rest = received.partition(b"\r\n")
    if not end or len(rest) < int(size, 16) + 2:
        return None
    return rest[: int(size, 16)], rest[int(size, 16) + 2 :]


@pytest.mark.parametrize("path", ["/v1/losses/mse", "/v1/batch"])
@pytest.mark.parametrize("kind", [JSON, NDJSON], ids=["json", "ndjson"])
@pytest.mark.parametrize("coding", ["br", "gzip, deflate", "zstd"])
def test_other_codings_are_415(client: Client, path: str, kind: dict[str, str], coding: str) -> None:
    answer = client.post(path, content=b"{}", headers={**kind, "content-encoding": coding})
    assert answer.status_code == 415
    assert coding in answer.json()["detail"] or kind is NDJSON


@each_coding
@pytest.mark.parametrize("spoil", [lambda b: b[:-5], lambda b: b + b"x", lambda b: b"x" + b, lambda b: b""])
def test_broken_codings_are_400(client: Client, coding: str, spoil: Any) -> None:
    body = orjson.dumps({"inputs": INPUTS})
    for path in ("/v1/losses/mse", "/v1/batch"):
        answer = client.post(
            path, content=spoil(CODERS[coding](body)), headers={**JSON, "content-encoding": coding}
        )
        assert answer.status_code == 400
        assert coding in answer.json()["detail"]


@each_coding
@pytest.mark.parametrize("spoil", [lambda b: b[:-5], lambda b: b + b"x", lambda b: b[:300] + b"x" * 300])
def test_a_broken_stream_ends_with_its_problem(client: Client, coding: str, spoil: Any) -> None:
    whole = CODERS[coding](b"\n".join(ITEM % (n, n) for n in range(300)) + b"\n")
    headers = {**NDJSON, "content-encoding": coding}
    answer = client.post("/v1/batch", content=spoil(whole), headers=headers)
    *results, last = [json.loads(line) for line in answer.text.splitlines()]
    assert (last["status"], last["error"]["status"], last["line"]) == ("error", 400, len(results) + 1)
    assert coding in last["error"]["detail"]


@each_coding
@pytest.mark.parametrize("path", ["/v1/losses/mse", "/v1/batch"])
def test_bombs_end_at_the_limit(coding: str, path: str) -> None:
    client = Client(create_app(Settings(device="cpu", max_body_bytes=1_000_000)))
    body = CODERS[coding](bytes(200_000_000))
    with within_cpu_s(0.5):
        answer = client.post(path, content=body, headers={**JSON, "content-encoding": coding})
    assert answer.status_code == 413
    assert "LOSSD_MAX_BODY_BYTES" in answer.json()["detail"]


@each_coding
def test_a_stream_that_is_a_bomb_ends_soon(client: Client, coding: str) -> None:
    bomb = CODERS[coding](b"\n" * 400_000_000)
    with within_cpu_s(10):
        answer = client.post("/v1/batch", content=bomb, headers={**NDJSON, "content-encoding": coding})
    [last] = [json.loads(line) for line in answer.text.splitlines()]
    assert last["error"]["status"] == 413
    assert "grows at most 100 times" in last["error"]["detail"]


def test_a_gzip_bomb_that_announces_itself_is_refused_unread(client: Client) -> None:
    """Nothing is inflated: inflating 256 MiB, the limit, would take longer."""
    bomb = gzip.compress(bytes(600_000_000), 1)
    with within_cpu_s(0.1):
        answer = client.post("/v1/losses/mse", content=bomb, headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 413
    assert "600000000 after decompression" in answer.json()["detail"]


@each_coding
def test_what_is_long_without_content_is_inflated_in_short_steps(coding: str) -> None:
    """Empty blocks with tables of their own take as long as megabytes of content."""
    body = without_content(coding, 1 << 20)
    inflation, buffer = Inflation(body, coding, bytearray(), 1 << 30, lambda length: None), bytearray()
    assert not buffer
    steps = 0
    while not inflation.done:
        start = time.thread_time()
        inflation.run(1 << 18, 0.002)
        steps += 1
        assert time.thread_time() - start < 0.02
    assert steps > 5


def without_content(coding: str, size: int) -> bytes:
    """Return the coding of nothing, in about so many bytes of blocks that begin with Huffman tables."""
    whole, tail = CODERS[coding](b""), {"gzip": 10, "deflate": 6}[coding]
    return whole[:-tail] + EMPTY_BLOCKS * (size // len(EMPTY_BLOCKS)) + whole[-tail:]


@pytest.mark.server
@pytest.mark.parametrize("path", ["/v1/losses/mse", "/v1/batch", "/v2/models/mse/infer"])
def test_small_calls_are_answered_while_much_without_content_is_inflated(server: str, path: str) -> None:
    body, headers = without_content("gzip", 30 << 20), {**JSON, "content-encoding": "gzip"}
    assert_quick_beside(
        server, lambda: httpx.post(f"{server}{path}", content=body, headers=headers, timeout=60)
    )


@pytest.mark.server
@each_coding
def test_small_calls_are_answered_while_blank_lines_are_inflated(server: str, coding: str) -> None:
    body, headers = CODERS[coding](b"\n" * 60_000_000), {**NDJSON, "content-encoding": coding}
    url = f"{server}/v1/batch"
    assert_quick_beside(server, lambda: httpx.post(url, content=body, headers=headers, timeout=60))


@pytest.mark.server
def test_a_coded_stream_ends_when_its_client_leaves(server: str) -> None:
    """All of it has arrived before, so nothing more is received."""
    with streaming(server, b"content-encoding: gzip\r\n") as connection:
        connection.sendall(chunk(gzip.compress(b"{}\n" * 10_000_000)) + chunk(b""))
        assert connection.recv(1)
    until(lambda: value(scrape(server), "lossd_requests_total", status="499", route=STREAM.label))


def assert_quick_beside(server: str, attack: Callable[[], object]) -> None:
    """Check that no small call waits for half a second, while a large one takes longer."""
    attacker = threading.Thread(target=attack)
    body, longest = {"inputs": {"predictions": [1], "targets": [0]}}, 0.0
    with httpx.Client() as small:
        small.post(f"{server}/v1/losses/mse", json=body)
        attacker.start()
        while attacker.is_alive():
            start = time.monotonic()
            assert small.post(f"{server}/v1/losses/mse", json=body, timeout=60).status_code == 200
            longest = max(longest, time.monotonic() - start)
    assert longest < 0.5


def test_short_answers_and_those_that_hardly_shrink_are_sent_as_they_are(client: Client) -> None:
    short = client.evaluate("mse", inputs={"predictions": [1], "targets": [0]})
    noise = [random.Random(n).random() for n in range(50_000)]
    inputs = {"predictions": noise, "targets": noise[::-1]}
    packed = client.evaluate("mse", inputs=inputs, encoding="base64")
    assert "gzip" in packed.request.headers["accept-encoding"]
    assert "content-encoding" not in short.headers
    assert "content-encoding" not in packed.headers
    assert client.evaluate("mse", inputs=inputs).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/v1/losses", "/v1/losses/cross_entropy"])
def test_the_catalogue_comes_in_gzip_and_not_again_to_who_has_it(client: Client, path: str) -> None:
    plain, coded = client.get(path, headers=PLAIN), client.get(path, headers={"accept-encoding": "gzip"})
    assert coded.headers["content-encoding"] == "gzip"
    assert coded.json() == plain.json()
    tag = {"if-none-match": coded.headers["etag"]}
    assert client.get(path, headers=tag).status_code == 304


@pytest.mark.server
def test_small_calls_are_answered_while_bombs_are_inflated(server: str) -> None:
    bomb = zlib.compress(bytes(250_000_000))
    headers, stop = {**JSON, "content-encoding": "deflate"}, threading.Event()

    def attack() -> None:
        while not stop.is_set():
            httpx.post(f"{server}/v1/losses/mse", content=bomb, headers=headers, timeout=60)

    attackers = [threading.Thread(target=attack) for _ in range(3)]
    for attacker in attackers:
        attacker.start()
    try:
        body = {"inputs": {"predictions": [1], "targets": [0]}}
        for _ in range(20):
            assert httpx.post(f"{server}/v1/losses/mse", json=body, timeout=5).json()["value"] == 1
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()


@each_coding
def test_what_was_inflated_is_given_back(coding: str) -> None:
    app = create_app(Settings(device="cpu", max_inflight_bytes=1_000_000, max_body_bytes=900_000))
    client = Client(app)
    body = CODERS[coding](orjson.dumps({"inputs": INPUTS}).ljust(800_000))

    async def calls() -> Iterator[int]:
        headers = {**JSON, "content-encoding": coding}
        answers = [
            await client.ask("POST", "/v1/losses/mse", content=body, headers=headers) for _ in range(9)
        ]
        return iter([answer.status_code for answer in answers])

    assert set(asyncio.run(calls())) == {200}
