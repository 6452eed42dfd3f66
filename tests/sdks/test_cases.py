"""The table of requests and answers that all clients share."""

import io
from contextlib import redirect_stdout

from tests.sdks import cases
from tests.sdks.readme import CLIENTS


def test_the_table_is_what_the_engine_gives() -> None:
    with redirect_stdout(io.StringIO()) as written:
        cases.main()
    assert written.getvalue() == (CLIENTS / "cases.json").read_text(), (
        "run python -m tests.sdks.cases > clients/cases.json"
    )
