"""The catalogue over HTTP: the list of losses, and the entry of each."""

from functools import cache

import orjson
from fastapi import APIRouter, Request, Response

from service.admission import query
from service.admission.content import Content, cacheable
from service.catalogue.registry import AnyLoss, Catalogue, D, Registry
from service.catalogue.search import as_task, search
from service.doors.evaluation import find_declared
from service.problems import Fault, Invalid, pointer, quoted
from service.wire import describe


def catalogue_routes(catalogue: Catalogue) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    # not a coroutine, so it runs in a thread: search and compression would block the event loop
    @routes.api_route("/v1/losses", methods=["GET", "HEAD"])
    def list_losses(request: Request) -> Response:
        asked = query.read_query(request.scope, "task", "q")
        found = search(catalogue, chosen_task(catalogue, asked.get("task")), asked.get("q"))
        return cacheable(request, Content(orjson.dumps({"losses": [describe.brief(loss) for loss in found]})))

    @cache
    def entry(loss: AnyLoss) -> Content:
        return Content(orjson.dumps(describe.entry(loss)))

    async def show_loss(request: Request) -> Response:
        query.read_query(request.scope)
        loss = find_declared(catalogue, request.path_params["name"])
        request.state.stages.loss = loss.name
        return cacheable(request, entry(loss))

    routes.add_route("/v1/losses/{name}", show_loss)
    return routes


def chosen_task(catalogue: Registry[D], sent: str | None) -> str | None:
    """Return a task as declarations name it.

    Raises:
        Invalid: there is none of that name; lists the known ones.
    """
    if not sent:
        return None
    tasks = sorted({task for one in catalogue.values() for task in one.tasks})
    if (task := as_task(sent)) in tasks:
        return task
    detail = f"Expected one of {', '.join(tasks)}; got {quoted(sent)}."
    raise Invalid(Fault(pointer("query", "task"), "unknown", detail))
