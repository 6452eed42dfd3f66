"""Words for numbers that JSON does not have, and unsigned integers, which torch hardly computes with."""

import pytest
import torch

from service.wire.inference.datatypes import from_buffer, widened
from service.wire.inference.nonfinite import MOST_QUOTES, spelled


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[NaN]", b'["NaN"]'),
        (b"[-Infinity, Infinity,NaN]", b'["-Infinity", "Infinity","NaN"]'),
        (b'{"NaN": NaN}', b'{"NaN": "NaN"}'),
        (rb'{"a\"NaN": NaN}', rb'{"a\"NaN": "NaN"}'),
        (rb'{"a\\": NaN, "b": "Infinity"}', rb'{"a\\": "NaN", "b": "Infinity"}'),
        (rb'["\\\" NaN", NaN]', rb'["\\\" NaN", "NaN"]'),
        (b'["NaN', b'["NaN'),
        (b"[1, 2]", None),
        (b"NaN" + b'"' * (MOST_QUOTES + 1), None),
    ],
)
def test_words_outside_of_strings_are_put_into_quotes(body: bytes, expected: bytes | None) -> None:
    assert spelled(body) == expected


def test_unsigned_integers_become_signed_ones_with_the_same_digits() -> None:
    for dtype in (torch.uint16, torch.uint32):
        ends = torch.tensor([0, torch.iinfo(dtype).max], dtype=dtype)
        assert widened(ends).tolist() == [0, torch.iinfo(dtype).max]
        assert widened(ends).dtype == torch.int64
    assert widened(torch.tensor([2**63 - 1], dtype=torch.uint64)).tolist() == [2**63 - 1]
    assert widened(torch.tensor([2**63], dtype=torch.uint64)).tolist() == [2.0**63]


def test_aligned_bytes_are_viewed_and_others_copied() -> None:
    buffer = bytearray(24)
    aligned = from_buffer(buffer, 8, torch.float32, [2, 2])
    odd = from_buffer(buffer, 7, torch.float32, [2, 2])
    buffer[8:] = bytes([0, 0, 128, 63] * 4)
    assert aligned.tolist() == [[1, 1], [1, 1]]
    assert odd.tolist() == [[0, 0], [0, 0]]
