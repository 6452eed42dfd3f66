"""Deadlines and leaving clients."""

import asyncio
from time import monotonic

import pytest
from starlette.types import Message

from service.doors.waiting import ClientGone, Due, deadline, wait
from service.problems import Late, Unreadable
from tests.client import Client


def sent(value: str) -> dict[bytes, bytes]:
    return {b"request-timeout": value.encode()}


async def stay() -> Message:
    await asyncio.Event().wait()
    return {}


async def leave() -> Message:
    return {"type": "http.disconnect"}


def test_a_client_may_ask_for_less_time_not_for_more() -> None:
    assert deadline({}, 60) == 60
    assert deadline(sent("1.5"), 60) == 1.5
    assert deadline(sent("600"), 60) == 60


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan"])
def test_what_is_no_time_is_refused(client: Client, value: str) -> None:
    with pytest.raises(Unreadable, match="Request-Timeout"):
        deadline(sent(value), 60)
    headers = {"content-type": "application/json", "request-timeout": value}
    assert client.post("/v1/losses/mse", content=b"{}", headers=headers).status_code == 400


def test_what_is_not_there_in_time_is_late_and_dropped() -> None:
    async def late() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with pytest.raises(Late, match=r"within 0\.05 s"):
            await wait(future, stay, Due(0.05, monotonic()))
        assert future.cancelled()

    asyncio.run(late())


def test_a_client_that_leaves_is_not_waited_for() -> None:
    async def gone() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with pytest.raises(ClientGone):
            await wait(future, leave, Due(60, monotonic()))
        assert future.cancelled()

    asyncio.run(gone())
