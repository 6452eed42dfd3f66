"""The catalogue over HTTP: the list of losses, and the entry of each."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.catalogue.registry import Catalogue
from service.catalogue.search import search
from service.doors.evaluation import find_loss
from service.wire import describe


def catalogue_routes(catalogue: Catalogue) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.api_route("/v1/losses", methods=["GET", "HEAD"])
    async def list_losses(task: str | None = None, q: str | None = None) -> dict[str, Any]:
        return {"losses": [describe.brief(loss) for loss in search(catalogue, task, q)]}

    async def show_loss(request: Request) -> Response:
        loss = find_loss(catalogue, request.path_params["name"])
        request.state.stages.loss = loss.name
        return JSONResponse(describe.entry(loss))

    routes.add_route("/v1/losses/{name}", show_loss)
    return routes
