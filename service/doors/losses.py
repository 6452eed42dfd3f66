"""The catalogue over HTTP: the list of losses, and the entry of each."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.catalogue.registry import Catalogue
from service.catalogue.search import search
from service.doors.batch import PATH as BATCH
from service.doors.evaluation import find
from service.wire import describe


def router(catalogue: Catalogue) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.api_route("/v1/losses", methods=["GET", "HEAD"])
    async def list_losses(task: str | None = None, q: str | None = None) -> dict[str, Any]:
        return {"losses": [describe.brief(loss) for loss in search(catalogue, task, q)]}

    async def show_loss(request: Request) -> Response:
        loss = find(catalogue, request.path_params["name"])
        request.state.stages.loss = loss.name
        return JSONResponse(describe.entry(loss))

    async def answered_before(request: Request) -> Response:
        raise AssertionError("a POST to this path does not get here")

    # a POST is answered by its door; the routes list it for the `Allow` header of a 405
    routes.add_route("/v1/losses/{name}", show_loss, methods=["GET", "POST"])
    routes.add_route(BATCH, answered_before, methods=["POST"])
    return routes
