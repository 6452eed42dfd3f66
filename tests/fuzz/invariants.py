"""Invariants of every answer, for any request."""

import re
from typing import Any

import orjson

from tests.fuzz.doors import Answer, Sent

REFUSED = {400, 404, 405, 413, 415, 422, 429, 503}
POINTER = re.compile(r"(/([^~/]|~[01])*)*")
SECONDS, SECONDS_A_MEGABYTE = 5.0, 4.0
"""Bounds on the time and memory of an answer, with room for a busy machine."""
INFERENCE_HEADER = "inference-header-content-length"


def check(sent: Sent, answer: Answer) -> None:
    """Check an answer: that it came soon, and is a result or a problem that is well-formed."""
    assert answer.seconds < SECONDS + SECONDS_A_MEGABYTE * sent.size / 1e6, f"{answer.seconds:.1f} s"
    if answer.status == 200:
        _check_result(sent, answer)
        return
    assert answer.status in REFUSED, f"{answer.status}: {answer.body[:500]!r}"
    inference = sent.path.startswith("/v2")
    media = "application/json" if inference else "application/problem+json"
    assert answer.headers["content-type"] == media
    problem = orjson.loads(answer.body)
    if inference:
        assert isinstance(problem["error"], str) and problem["error"]
        assert answer.status != 422
    check_problem(problem, answer.status)


def check_problem(problem: Any, status: int | None = None) -> None:
    """Check the members of a problem; ``status`` is the one it was answered with."""
    assert problem["status"] == status or (status is None and problem["status"] in REFUSED), problem
    assert problem["type"].startswith("urn:lossd:problem:")
    for text in ("title", "detail", "instance"):
        assert isinstance(problem[text], str) and problem[text]
    for fault in problem["errors"]:
        assert POINTER.fullmatch(fault["pointer"]), fault
        assert fault["code"] and "Expected " in fault["detail"] and "; got " in fault["detail"], fault


def _check_result(sent: Sent, answer: Answer) -> None:
    """Check a result, by the door it came through."""
    if sent.path.startswith("/v2"):
        _check_inference(answer)
    elif answer.headers["content-type"] == "application/x-ndjson":
        for line in answer.body.splitlines():
            _check_item(orjson.loads(line))
    elif sent.path == "/v1/batch":
        batch = orjson.loads(answer.body)
        states = [item["status"] for item in batch["results"]]
        assert (states.count("ok"), states.count("error")) == (batch["succeeded"], batch["failed"])
        for item in batch["results"]:
            _check_item(item)
    else:
        check_evaluation(orjson.loads(answer.body))


def _check_item(item: Any) -> None:
    """Check the result of an item."""
    if item["status"] == "ok":
        check_evaluation(item)
    else:
        check_problem(item["error"])


def check_evaluation(found: Any) -> None:
    """Check that whatever is not finite is null, and counted."""
    outputs = {"value": found["value"]}
    outputs |= {f"gradients.{name}": tensor for name, tensor in found["gradients"].items()}
    outputs |= {f"aux.{name}": tensor for name, tensor in found.get("aux", {}).items()}
    counted = found.get("nonfinite", {})
    assert counted.keys() <= outputs.keys()
    for name, tensor in outputs.items():
        if not isinstance(tensor, dict):
            assert _nulls(tensor) == counted.get(name, 0), (name, found)


def _nulls(tensor: Any) -> int:
    """Count the elements that are null."""
    return sum(map(_nulls, tensor)) if isinstance(tensor, list) else int(tensor is None)


def _check_inference(answer: Answer) -> None:
    """Check that an answer of the inference protocol is as long as it says."""
    if answer.headers.get("content-encoding"):
        return
    split = int(answer.headers.get(INFERENCE_HEADER, len(answer.body)))
    head = orjson.loads(answer.body[:split])
    sizes = [output.get("parameters", {}).get("binary_data_size", 0) for output in head["outputs"]]
    assert split + sum(sizes) == len(answer.body)
