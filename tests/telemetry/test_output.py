"""Lines are written in their order, or dropped and counted; who writes never waits for who reads."""

import fcntl
import os
import threading

from service.telemetry.output import MOST_WAITING, Output

LINE = b"x" * 999 + b"\n"


def notice(count: int) -> bytes:
    return b"dropped %d\n" % count


def read_to_notice(descriptor: int) -> bytes:
    """Return the lines written until some were dropped."""
    received = b""
    while b"dropped" not in received or not received.endswith(b"\n"):
        received += os.read(descriptor, 1 << 16)
    return received


def test_lines_come_in_their_order() -> None:
    reader, writer = os.pipe()
    output = Output(writer, notice)
    for number in range(1000):
        output.write(b"%d\n" % number)
    output.flush(30)
    assert os.read(reader, 1 << 16).split() == [b"%d" % number for number in range(1000)]
    assert output.count_dropped() == 0


def test_what_is_not_read_is_dropped_and_counted_and_told_of_once() -> None:
    reader, writer = os.pipe()
    output = Output(writer, notice)
    sent = 3 * MOST_WAITING // len(LINE)
    for _ in range(sent):
        output.write(LINE)
    dropped = output.count_dropped()
    assert sent // 3 < dropped < sent
    assert output.count_dropped() == 0, "each is counted once"
    lines = read_to_notice(reader).splitlines()
    assert lines.count(LINE[:-1]) == sent - dropped
    assert lines[-1] == b"dropped %d" % dropped
    output.write(b"more\n")
    output.flush(30)
    assert os.read(reader, 1 << 16) == b"more\n"


def test_lines_that_cannot_be_written_are_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer, notice)
    output.write(b"a\nb\n")
    output.flush(30)
    assert output.count_dropped() == 2


def test_an_output_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    output = Output(writer, notice)
    lines = [LINE] * 500
    for line in lines:
        output.write(line)
    received = b""
    while len(received) < len(LINE) * len(lines):
        received += os.read(reader, 1 << 16)
    assert received == b"".join(lines)
    assert output.count_dropped() == 0


def test_the_end_waits_for_the_reader_only_so_long() -> None:
    _, writer = os.pipe()
    output = Output(writer, notice)
    output.write(LINE * 500)
    ended = threading.Thread(target=output.flush, args=(0.05,))
    ended.start()
    ended.join(30)
    assert not ended.is_alive()
