"""Every operation of the OpenAPI document answers as it says, whatever schemathesis makes of the document."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings

from service.document.openapi import document
from service.losses import CATALOGUE
from service.metrics import METRICS

schemathesis: Any = pytest.importorskip("schemathesis", reason="make test-fuzz installs it")
checks: Any = pytest.importorskip("schemathesis.checks", reason="make test-fuzz installs it")

pytestmark = [pytest.mark.server, pytest.mark.filterwarnings("ignore")]

SCHEMA = schemathesis.openapi.from_dict(
    orjson.loads(orjson.dumps(document(CATALOGUE.values(), METRICS.values())))
)
NAMED = {f"POST /v1/losses/{name}" for name in CATALOGUE} | {f"POST /v1/metrics/{name}" for name in METRICS}
GENERIC = {"POST /v1/losses/{name}", "POST /v1/metrics/{name}"}
SHOWN = {"GET /v1/losses/{name}", "GET /v1/metrics/{name}"}
UNLISTED = {"GET /v1/losses", "GET /v1/metrics", "POST /v2/repository/models/{model}/unload"}
"""Tasks are no enumeration, which generated clients would hold against new ones; no model can be unloaded."""
PATIENT_S = 60
"""Longer than any drawn call takes, on a busy machine too."""
TAKE_TENSORS = {*NAMED, *GENERIC, "POST /v1/compose", "POST /v1/batch", "POST /v2/models/{model}/infer"}
EVALUATIONS = "/v1/evaluations"


@schemathesis.serializer("application/x-ndjson")
def _write_line(context: Any, item: Any) -> bytes:
    """Write a stream of one item."""
    # of integers of any size, which orjson does not write
    return json.dumps(item).encode() + b"\n"


@SCHEMA.parametrize()
# beside those that cover the schema
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
def test_every_operation_answers_as_the_document_says(case: Any, server: str) -> None:
    _give_time(case)
    case.call_and_validate(base_url=server, excluded_checks=[*_excluded(case)])


def _give_time(case: Any) -> None:
    """Let no request ask for less than `PATIENT_S`, because it would rightly get a 504."""
    try:
        seconds = float(case.headers.get("Request-Timeout", PATIENT_S))
    except ValueError:
        return
    if 0 < seconds < PATIENT_S:
        case.headers["Request-Timeout"] = str(PATIENT_S)


def _excluded(case: Any) -> Iterator[Any]:
    """Yield the checks that do not hold of a request, each by the contract; no server error is let through."""
    operation = case.operation.label
    if operation in NAMED | GENERIC | SHOWN:
        # one path: the document lists POST for each loss and metric, and GET once for all
        yield checks.allow_header_conformance
    if operation in TAKE_TENSORS | UNLISTED or EVALUATIONS in operation:
        # no union describes a tensor, since generators of clients know none: anything may be one. Names in specs,
        # parts and queries of evaluations are no enumerations either
        yield checks.positive_data_acceptance
    if operation == "POST /v1/batch" or EVALUATIONS in operation or _has_null(case.body):
        # a bad item fails alone; a member that is null counts as absent, at any depth of a spec too; a param's default
        # may be null
        yield checks.negative_data_rejection


def _has_null(body: Any) -> bool:
    """Return whether a member or a param is null."""
    if not isinstance(body, dict):
        return False
    params = body.get("params")
    return None in body.values() or (isinstance(params, dict) and None in params.values())
