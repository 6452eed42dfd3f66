"""A minimal client, so that the server is what is measured."""

import socket
import threading
import time
from collections.abc import Iterator

JSON = "content-type: application/json"


class Connection:
    """A persistent connection that posts a body, JSON by default, and reads the whole answer."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(1 << 18))

    def post(self, path: str, body: bytes, header: str = JSON) -> bytes:
        """Send a body and wait for its answer, which must be a 200; return its headers."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        received = self._receive(0)
        while (end := bytes(self._buffer[:received]).find(b"\r\n\r\n")) < 0:
            received += self._receive(received)
        headers = bytes(self._buffer[:end]).lower()
        assert headers.startswith(b"http/1.1 200"), headers
        length = int(headers.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
        left = length - (received - end - 4)
        while left > 0:
            left -= self._receive(0)
        return headers

    def close(self) -> None:
        self._socket.close()

    def _receive(self, start: int) -> int:
        """Read the available bytes."""
        count = self._socket.recv_into(self._buffer[start:])
        assert count, "the server has closed the connection"
        return count


class Stream:
    """A connection that sends lines in chunks, and reads lines while it sends."""

    def __init__(self, url: str, path: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        self._socket.sendall(head.encode())

    def send(self, block: bytes) -> None:
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(block), block))

    def end(self) -> None:
        self._socket.sendall(b"0\r\n\r\n")

    def lines(self, count: int) -> Iterator[None]:
        """Yield once for each of so many lines that have arrived: each result is one with ``"status":``."""
        rest, seen = b"", 0
        while seen < count:
            received = self._socket.recv(1 << 18)
            assert received, "the server has closed the connection"
            rest += received
            found = rest.count(b'"status":"ok"')
            for _ in range(found):
                yield
            seen += found
            # drop counted bytes, keep those that may begin the next result
            rest = rest[rest.rfind(b'"status":"ok"') + 13 :] if found else rest[-13:]


def calls_a_second(
    url: str, path: str, body: bytes, header: str = JSON, *, connections: int = 8, seconds: float = 3.0
) -> float:
    """Return the number of calls a second that a server answers to a few concurrent clients."""
    counts: list[int] = []
    end = time.perf_counter() + seconds

    def run() -> None:
        connection = Connection(url)
        count = 0
        while time.perf_counter() < end:
            connection.post(path, body, header)
            count += 1
        connection.close()
        counts.append(count)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds
