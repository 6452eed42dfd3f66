"""A part of an evaluation, ready to be stored: its rows, the hashes that identify them, and its block."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.catalogue.table import Array
from service.evaluations.identity import Hashes
from service.evaluations.rows import Rows


@dataclass(frozen=True, slots=True)
class PartContent:
    """The rows of a part, with the hashes of their ids and of their contents, and the digest of all of them.

    ``lines`` are those of the body that the rows came from, if it had lines.
    """

    rows: Rows
    hashes: Array
    contents: Hashes
    digest: bytes
    lines: Sequence[int] = ()
