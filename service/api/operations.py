"""The routes for operators: alive, ready, limits."""

from fastapi import APIRouter, FastAPI

from service.problems import Unavailable
from service.settings import Settings

READ = ["GET", "HEAD"]
"""FastAPI, unlike others, takes GET for GET alone."""


def router(app: FastAPI, settings: Settings) -> APIRouter:
    """Return the routes; ``app.state.ready`` tells whether the device is warm."""
    routes = APIRouter()

    @routes.api_route("/healthz", methods=READ)
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @routes.api_route("/readyz", methods=READ)
    async def ready() -> dict[str, str]:
        if not app.state.ready:
            raise Unavailable("The device is still warming up.")
        return {"status": "ready"}

    @routes.api_route("/v1/limits", methods=READ)
    async def limits() -> dict[str, int | float]:
        return settings.limits()

    return routes
