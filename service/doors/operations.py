"""Routes for operators: liveness, readiness, limits."""

from fastapi import APIRouter, Request

from service.admission import query
from service.admission.lifecycle import Lifecycle
from service.settings import Settings

READ = ["GET", "HEAD"]
"""FastAPI does not add HEAD to GET, as Starlette does."""


def operations_routes(lifecycle: Lifecycle, settings: Settings) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.api_route("/healthz", methods=READ)
    async def alive() -> dict[str, str]:
        lifecycle.refuse_failed()
        return {"status": "alive"}

    @routes.api_route("/readyz", methods=READ)
    async def ready() -> dict[str, str]:
        lifecycle.refuse_unready()
        return {"status": "ready"}

    @routes.api_route("/v1/limits", methods=READ)
    async def limits(request: Request) -> dict[str, int | float]:
        query.read_query(request.scope)
        return settings.limits()

    return routes
