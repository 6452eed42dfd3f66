"""Clients that try to stop a server or fill its memory, each as small as possible.

An `Attack` is prepared first, so that making its bodies is not measured. Clients of
an attack run in threads until ``until``, and count the statuses that they get.
"""

import base64
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import orjson

JSON = "content-type: application/json"
LINES = "content-type: application/x-ndjson"
IMPATIENT = "request-timeout: 0.2"
CLOSE = "connection: close"
PATIENCE_S = 20.0
"""Seconds to wait for the answers after an attack."""


@dataclass
class Target:
    """The attacked server, and the end of the attack."""

    host: str
    port: int
    until: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter[str])
    kept: list[socket.socket] = field(default_factory=list[socket.socket])
    """Connections that are open until the attacker's process ends."""

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """Return a connection; a small ``receive_buffer`` keeps the kernel from reading for the client."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(max(0.1, self.until - time.monotonic()))
        connection.connect((self.host, self.port))
        return connection

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until


Run = Callable[[Target], None]
Attack = Callable[[], Run]
"""Makes the bodies, and returns a function that sends them."""


def request(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """Return a POST."""
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def evaluate(loss: str, *headers: str, version: str = "1.1", **members: object) -> bytes:
    """Return a call of a loss."""
    return request(f"/v1/losses/{loss}", orjson.dumps(members), JSON, *headers, version=version)


def packed(*shape: int, value: float = 0.5) -> dict[str, object]:
    """Return a float32 tensor in base64."""
    data = base64.b64encode(np.full(shape, value, np.float32).tobytes()).decode()
    return {"dtype": "float32", "shape": shape, "data": data}


def numbers(count: int, text: str = "1.5") -> bytes:
    """Return so many numbers as JSON."""
    return b"[" + b",".join([text.encode()] * count) + b"]"


def mse_of(predictions: bytes, targets: bytes, *headers: str, rest: bytes = b"") -> bytes:
    """Return a call of ``mse`` on arrays that are written already."""
    body = b'{"inputs":{"predictions":%b,"targets":%b}%b}' % (predictions, targets, rest)
    return request("/v1/losses/mse", body, JSON, *headers)


def looping(*calls: bytes, clients: int = 2) -> Run:
    """Send calls again and again, and read their answers."""

    def run(target: Target) -> None:
        def client() -> None:
            while not target.over:
                for call in calls:
                    target.statuses[ask(target, call)] += 1

        _together(client, clients)

    return run


def once(calls: Callable[[], Iterator[bytes]], clients: int = 2) -> Run:
    """Send each call once, some at a time, and wait longer for the last."""

    def run(target: Target) -> None:
        target.until += PATIENCE_S
        left, lock = calls(), threading.Lock()

        def client() -> None:
            while not target.over:
                with lock:
                    call = next(left, None)
                if call is None:
                    return
                target.statuses[ask(target, call)] += 1

        _together(client, clients)

    return run


def unread(call: bytes, clients: int, rate: float = 0.0) -> Run:
    """Send a call on many connections, and read so many bytes a second of its answer, or none."""

    def run(target: Target) -> None:
        target.kept = [target.connect(1 << 14) for _ in range(clients)]
        for connection in target.kept:
            threading.Thread(target=_send, args=(connection, call), daemon=True).start()
        while not target.over:
            time.sleep(0.1)
            for connection in target.kept if rate else ():
                with suppress(OSError):
                    connection.recv(int(rate / 10), socket.MSG_DONTWAIT)

    return run


def flooding(head: bytes, block: bytes, clients: int) -> Run:
    """Send without end on many connections, and read nothing."""

    def run(target: Target) -> None:
        def client() -> None:
            with suppress(OSError):
                target.kept.append(connection := target.connect(1 << 14))
                connection.sendall(head)
                while not target.over:
                    connection.sendall(block)

        _together(client, clients)

    return run


def ask(target: Target, call: bytes) -> str:
    """Return the status of a call's answer, all of which is read."""
    try:
        with target.connect() as connection:
            sending = threading.Thread(target=_send, args=(connection, call), daemon=True)
            sending.start()
            return receive(connection)
    except TimeoutError:
        return "no answer"
    except OSError:
        return "reset"


def receive(connection: socket.socket) -> str:
    """Return the status of an answer, once all of it is here."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1 << 16)
        if not piece:
            raise ConnectionError
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    _, found, length = head.lower().partition(b"content-length: ")
    left = (int(length.split(b"\r\n")[0]) if found else 0) - len(body)
    while left > 0 and (piece := connection.recv(1 << 20)):
        left -= len(piece)
    return head[9:12].decode("latin-1")


def _send(connection: socket.socket, data: bytes) -> None:
    """Send, unless the server has closed the connection."""
    with suppress(OSError):
        connection.sendall(data)


def _together(client: Callable[[], None], count: int) -> None:
    """Run clients at once."""
    threads = [threading.Thread(target=client, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _rounds(loss: str, param: str, rounds: int) -> Attack:
    """Loop over one element for longer than anybody waits."""
    inputs = {"logits": [[[0.5]]], "targets": [[[1]]]}
    return lambda: looping(evaluate(loss, IMPATIENT, inputs=inputs, params={"mode": "binary", param: rounds}))


def _neural_ndcg() -> Run:
    inputs = {"scores": [[0.001 * place for place in range(100)]], "targets": [[1] * 100]}
    return looping(evaluate("neural_ndcg", IMPATIENT, inputs=inputs, params={"max_iter": 10_000}))


def _crf() -> Run:
    steps = 100_000
    inputs = {
        "emissions": packed(1, steps, 2),
        "transitions": [[0, 1], [1, 0]],
        "start_transitions": [0, 0],
        "end_transitions": [0, 0],
        "targets": packed(1, steps, value=0.0),
    }
    return looping(evaluate("linear_chain_crf", IMPATIENT, inputs=inputs))


def _ctc() -> Run:
    steps = 100_000
    inputs = {
        "log_probabilities": packed(steps, 1, 2, value=-0.7),
        "targets": [[1]],
        "input_lengths": [steps],
        "target_lengths": [1],
    }
    return looping(evaluate("ctc", IMPATIENT, inputs=inputs))


def _lists(loss: str, length: int, *headers: str) -> Attack:
    """Rank a list."""
    scores = [round(0.001 * place, 3) for place in range(length)]
    inputs = {"scores": [scores], "targets": [[place % 5 for place in range(length)]]}
    return lambda: looping(evaluate(loss, *headers, inputs=inputs))


def _sub_centers() -> Run:
    rows, centers, width = 4096, 4096, 32
    inputs = {
        "embeddings": packed(rows, width),
        "prototypes": packed(1, centers, width),
        "targets": [0] * rows,
    }
    return looping(evaluate("sub_center_arcface", inputs=inputs), clients=1)


def _gradient_names(count: int, length: int) -> Attack:
    """Request gradients with unknown names, different in each request."""

    def calls() -> Iterator[bytes]:
        for number in range(count):
            names = [f"{number}{'x' * length}"]
            yield evaluate("mse", inputs={"predictions": [1], "targets": [2]}, gradients=names)

    return lambda: once(calls)


def _loss_names(count: int, length: int) -> Attack:
    """Request unknown losses."""

    def calls() -> Iterator[bytes]:
        for number in range(count):
            body = b'{"items":[{"loss":"%d%b","inputs":{}}]}' % (number, b"x" * length)
            yield request("/v1/batch", body, JSON)

    return lambda: once(calls)


def _defaults(items: int, **defaults: object) -> Attack:
    """Send faults that apply to every item."""
    body = b'{"items":[%b],"defaults":%b}' % (b",".join([b"{}"] * items), orjson.dumps(defaults))
    return lambda: looping(request("/v1/batch", body, JSON), clients=1)


def _large_answers(*headers: str, version: str = "1.1", rate: float = 0.0) -> Attack:
    """Request answers of 8 MB, and read them slowly or not at all."""
    inputs = {"predictions": packed(200_000, value=1 / 3), "targets": packed(200_000)}
    call = evaluate("mse", *headers, version=version, inputs=inputs, reduction="none")
    return lambda: unread(call, 40, rate)


def _streams() -> Run:
    head = f"POST /v1/batch HTTP/1.1\r\nhost: x\r\n{LINES}\r\ntransfer-encoding: chunked\r\n\r\n"
    lines = b"1\n" * 32_768
    return flooding(head.encode(), b"%x\r\n%b\r\n" % (len(lines), lines), clients=100)


def _pipelined() -> Run:
    get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    return unread(get * (65_536 // len(get)), clients=100)


def _class_weight() -> bytes:
    body = b'{"inputs":{"logits":[[1,2]],"targets":[0]},"params":{"weight":%b}}'
    return request("/v1/losses/cross_entropy", body % numbers(1 << 26, "1"), JSON)


def _single(make: Callable[[], bytes], clients: int = 1) -> Attack:
    """Send one large body, from each of some clients."""

    def attack() -> Run:
        call = make()
        return once(lambda: iter([call] * clients), clients=clients)

    return attack


def _large(count: int = 4_000_000) -> bytes:
    array = numbers(count)
    return mse_of(array, array)


def _long_integer() -> bytes:
    return mse_of(numbers(32_000_000), b"[1]", rest=b',"sample_weight":1234567890123456789012345')


def _rows_of_one(count: int = 4_000_000, last: str = "[1]") -> bytes:
    rows = b"%b,%b]" % (numbers(count, "[1]")[:-1], last.encode())
    return mse_of(rows, rows)


def _many_names() -> bytes:
    return mse_of(b"[1]", b"[2]", rest=b',"gradients":%b' % numbers(32_000_000, '"a"'))


def _many_integers_in_a_batch() -> bytes:
    item = b'{"id":1234567890123456789012345,"loss":"mse","inputs":{"predictions":[1],"targets":[%b]}}'
    return request("/v1/batch", b'{"items":[%b]}' % (item % numbers(8_000_000)[1:-1]), JSON)


def _base64() -> bytes:
    tensor = packed(8_000_000)
    return evaluate("mse", inputs={"predictions": tensor, "targets": tensor}, encoding="base64")


def _inference() -> bytes:
    data = numbers(4_000_000)
    tensor = b'{"name":"%b","shape":[4000000],"datatype":"FP32","data":%b}'
    inputs = b",".join(tensor % (name, data) for name in (b"predictions", b"targets"))
    return request("/v2/models/mse/infer", b'{"inputs":[%b]}' % inputs, JSON)


ATTACKS: dict[str, Attack] = {
    "soft_cldice, 200,000 rounds, given up": _rounds("soft_cldice", "iterations", 200_000),
    "hausdorff_er, 200,000 rounds, given up": _rounds("hausdorff_er", "erosions", 200_000),
    "neural_ndcg, 10,000 rounds, given up": _neural_ndcg,
    "linear_chain_crf, 100,000 steps, given up": _crf,
    "ctc, 100,000 steps, given up": _ctc,
    "approx_ndcg, 12 kB": _lists("approx_ndcg", 1_000),
    "lambdarank, list of 10,000, given up": _lists("lambdarank", 10_000, IMPATIENT),
    "sub_center_arcface, 3 MB": _sub_centers,
    "60 gradient names of 4 MB": _gradient_names(60, 4_200_000),
    "60 loss names of 20 MB": _loss_names(60, 20_000_000),
    "10,000 items, 100 unknown default params": _defaults(
        10_000, loss="mse", params={f"unknown{number}": 1 for number in range(100)}
    ),
    "1,000 items, 100,000 default gradient names": _defaults(
        1_000, loss="mse", gradients=[f"name{number}" for number in range(100_000)]
    ),
    "40 × 8 MB unread, Connection: close": _large_answers(CLOSE),
    "40 × 8 MB unread, HTTP/1.0": _large_answers(version="1.0"),
    "40 × 8 MB unread, kept": _large_answers(),
    "40 × 8 MB read at 100 kB/s": _large_answers(rate=100_000),
    "100 streams of 1": _streams,
    "100 × 64 kB of pipelined GETs": _pipelined,
    "class weights, 128 MB": _single(_class_weight),
    "a 25-digit integer in 128 MB": _single(_long_integer),
    "a 25-digit id in 32 MB": _single(_many_integers_in_a_batch),
    "rows of [1], 32 MB": _single(_rows_of_one),
    "rows of [1] and one of [1,2], 128 MB": _single(lambda: _rows_of_one(16_000_000, "[1,2]")),
    "gradient names, 128 MB": _single(_many_names),
    "ordinary 32 MB, twice": _single(_large, clients=2),
    "base64, 85 MB": _single(_base64),
    "inference in JSON, 32 MB": _single(_inference),
    "broken JSON, 100 MB": _single(lambda: mse_of(numbers(25_000_000)[:-1], b"")),
}
"""Every attack by its name."""
