"""Answers about evaluations: results, entries, parts and rows as the members of JSON documents."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.evaluations.results import Difference, Results, Worst
from service.evaluations.spec import Spec
from service.evaluations.store import EvaluationEntry, Stored
from service.wire.metrics import result_members


def results_answer(name: str | None, spec: Spec, found: Results) -> dict[str, Any]:
    """Return the members of the results of an evaluation; ``name`` is None for one that is not stored."""
    body: dict[str, Any] = {} if name is None else {"name": name}
    body |= {"rows": found.rows, **_progress(spec.expect, found.rows)}
    signatures = {measure.name: measure.signature for measure in spec.measures}
    body["results"] = {
        name: {**result_members(one), "signature": signatures[name]} for name, one in found.results.items()
    }
    if found.slices:
        body["slices"] = {
            name: {
                "rows": one.rows,
                "results": {key: result_members(value) for key, value in one.results.items()},
            }
            for name, one in found.slices.items()
        }
    if found.difference is not None:
        body["difference"] = {name: _difference(one) for name, one in found.difference.items()}
        body["rows_paired"] = found.paired
    return body


def entry_answer(entry: EvaluationEntry) -> dict[str, Any]:
    """Return the members of an evaluation in a list."""
    return {
        "name": entry.name,
        "rows": entry.rows,
        **_progress(entry.document["expect"], entry.rows),
        "created_at": _time(entry.created_at),
        "expires_at": _time(entry.expires_at),
    }


def part_answer(stored: Stored) -> dict[str, Any]:
    """Return the members of the answer to a part."""
    return {"rows": stored.rows, "new": stored.new, "seen": stored.rows - stored.new}


def rows_answer(rows: Sequence[Worst]) -> dict[str, Any]:
    """Return the members of a list of rows."""
    return {
        "rows": [
            {
                "id": row.id,
                "part": row.part,
                "value": row.value if math.isfinite(row.value) else None,
                "columns": dict(row.columns),
            }
            for row in rows
        ]
    }


def _progress(expect: int | None, rows: int) -> dict[str, Any]:
    """Return how many rows are expected, and whether they are there; unknown without a number."""
    return {"expected": expect, "complete": expect is not None and rows >= expect}


def _difference(found: Difference) -> Mapping[str, Any]:
    """Return the members of a difference."""
    if found.value is None:
        return {"value": None, "undefined": found.undefined}
    if found.interval is None:
        return {"value": found.value}
    return {"value": found.value, "interval": [*found.interval]}


def _time(seconds: float) -> str:
    """Return a time as RFC 3339 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
