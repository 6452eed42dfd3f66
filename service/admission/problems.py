"""Answer every problem as RFC 9457, whether it comes from our code, the framework or a bug."""

from typing import cast
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.problems import (
    Busy,
    Fault,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreadable,
    UnsupportedMedia,
    pointer,
    quoted,
)
from service.routes import OTHER, match_route

INFERENCE = "/v2"
"""Path prefix of the Open Inference Protocol."""
MOST_LISTED = 5
"""Most faults that the single text of a problem lists."""
BY_STATUS = {404: NotFound, 413: TooLarge, 415: UnsupportedMedia}


def answer_problems(app: FastAPI) -> None:
    """Install handlers that answer every exception of an application as a problem."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(HTTPException, _of_http_exception)
    app.add_exception_handler(RequestValidationError, _of_validation)
    # Starlette raises it again after the answer, and the caller logs it
    app.add_exception_handler(Exception, _of_bug)


def response(problem: Problem, path: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer for a problem; below `INFERENCE` in the format that its clients read."""
    if isinstance(problem, Busy | Throttled | Unavailable) and problem.retry_after is not None:
        headers = {"Retry-After": str(problem.retry_after), **(headers or {})}
    elif isinstance(problem, MethodNotAllowed):
        headers = {"Allow": problem.allowed}
    elif isinstance(problem, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    document, media, status = problem.document(quote(path)), "application/problem+json", problem.status
    if path == INFERENCE or path.startswith(f"{INFERENCE}/"):
        status = Unreadable.status if isinstance(problem, Invalid) else status
        document, media = {"error": sentence(problem), **document, "status": status}, "application/json"
    return Response(orjson.dumps(document), status, headers=headers, media_type=media)


def sentence(problem: Problem) -> str:
    """Put a problem into a single text, for clients that show nothing else."""
    if not problem.faults:
        return problem.detail
    listed = [f"{fault.pointer} {fault.detail}".lstrip() for fault in problem.faults[:MOST_LISTED]]
    more = len(problem.faults) - len(listed)
    return " ".join([*listed, *([f"And {more} more."] if more else [])])


async def _of_problem(request: Request, error: Exception) -> Response:
    """Answer a problem of ours."""
    return response(cast(Problem, error), request.scope["path"])


def of_bug(error: Exception) -> Problem:
    """Return the problem of an uncaught exception: a bug of ours, unless memory ran out."""
    if isinstance(error, MemoryError):
        return TooLarge("Expected a request that fits into the server's memory; got a larger one.")
    return Internal("The server failed while processing this request; see its log.")


async def _of_bug(request: Request, error: Exception) -> Response:
    """Answer an uncaught exception."""
    return response(of_bug(error), request.scope["path"])


async def _of_http_exception(request: Request, error: Exception) -> Response:
    """Answer the framework's refusals, such as unknown paths."""
    error = cast(HTTPException, error)
    kind, path = BY_STATUS.get(error.status_code, Internal), request.scope["path"]
    if kind is NotFound and path.endswith("/") and match_route(request.method, path[:-1]).route is not OTHER:
        return _without_slash(request)
    if kind is NotFound:
        problem: Problem = NotFound(f"There is nothing at {quoted(path)}; GET /docs lists all operations.")
    else:
        problem = kind(str(error.detail))
    return response(problem, path, dict(error.headers or {}))


def _without_slash(request: Request) -> Response:
    """Redirect to the path without its last slash; relative, because a gateway may have another host and scheme."""
    query = request.url.query
    return Response(
        status_code=308,
        headers={"Location": quote(request.scope["path"][:-1]) + (f"?{query}" if query else "")},
    )


async def _of_validation(request: Request, error: Exception) -> Response:
    """Answer query and path parameters refused by FastAPI."""
    faults = [
        Fault(pointer(*e["loc"]), e["type"], f"Expected a valid value: {e['msg']}; got {e.get('input')!r}.")
        for e in cast(RequestValidationError, error).errors()
    ]
    return response(Invalid(*faults), request.scope["path"])
