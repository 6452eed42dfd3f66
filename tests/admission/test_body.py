"""Bodies are read up to the limit, whatever was in the buffer before, and what they hold is on the account."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from service.admission.account import Account
from service.admission.body import read_into, receive_all
from service.problems import TooLarge
from service.settings import Settings
from service.telemetry.stages import Stages

LIMIT = 1024
SETTINGS = Settings(max_body_bytes=LIMIT)


class Arriving:
    """A request whose body arrives in pieces; ``asked`` counts the pieces that were received."""

    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        declared = {} if length is None else {b"content-length": b"%d" % length}
        self.account = Account(1 << 20, capacity=1)
        self.hold = self.account.open()
        self.scope: dict[str, Any] = {
            "state": {"headers": declared, "hold": self.hold, "stages": Stages(declared)}
        }
        self.asked = 0
        self._pieces = pieces

    async def receive(self) -> Message:
        piece = self._pieces[self.asked]
        self.asked += 1
        return {"type": "http.request", "body": piece, "more_body": self.asked < len(self._pieces)}


def read(request: Arriving, before: bytes) -> bytes:
    """Return a buffer after a body was appended."""
    buffer = bytearray(before)
    asyncio.run(read_into(buffer, request.scope, request.receive, SETTINGS))
    return bytes(buffer)


@pytest.mark.parametrize("before", [b"", b"x" * 15, b"x" * 2 * LIMIT])
@pytest.mark.parametrize("declared", [True, False])
def test_the_limit_is_of_the_body_and_not_of_the_buffer(before: bytes, declared: bool) -> None:
    for size in (LIMIT, LIMIT + 1):
        request = Arriving(b"a" * 1000, b"b" * (size - 1000), length=size if declared else None)
        if size > LIMIT:
            with pytest.raises(TooLarge, match=f"at most {LIMIT} bytes .*got {size}"):
                read(request, before)
        else:
            assert read(request, before) == before + b"a" * 1000 + b"b" * (size - 1000)
            assert (request.account.bytes, request.account.accepted) == (size, 1)


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize(
    "pieces", [(b"abcdef",), (b"abc", b"def"), (b"abc", b"def", b""), (b"", b"abcdef", b"")]
)
def test_a_body_is_the_same_in_whatever_pieces_it_arrives(
    pieces: tuple[bytes, ...], length: int | None
) -> None:
    request = Arriving(*pieces, length=length)
    assert bytes(asyncio.run(receive_all(request.scope, request.receive, SETTINGS))) == b"abcdef"
    assert request.scope["state"]["stages"].bytes_in == request.account.bytes == 6
    request.hold.leave()
    assert (request.account.bytes, request.account.accepted) == (0, 0)


def test_a_complete_body_is_not_waited_for_any_longer() -> None:
    request = Arriving(b"abcdef", b"", length=6)
    asyncio.run(receive_all(request.scope, request.receive, SETTINGS))
    assert request.asked == 1


def test_a_body_over_the_limit_is_refused_in_one_piece_and_in_many() -> None:
    for pieces in ((b"a" * (LIMIT + 1),), (b"a" * LIMIT, b"a")):
        request = Arriving(*pieces)
        with pytest.raises(TooLarge, match=f"got {LIMIT + 1}"):
            asyncio.run(receive_all(request.scope, request.receive, SETTINGS))
        assert request.account.accepted == 0
