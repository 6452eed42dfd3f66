"""The routes for operators: alive, ready, limits."""

from fastapi import APIRouter, FastAPI

from service.problems import Unavailable
from service.settings import Settings


def router(app: FastAPI, settings: Settings) -> APIRouter:
    """Return the routes; ``app.state.ready`` tells whether the device is warm."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz")
    async def ready() -> dict[str, str]:
        if not app.state.ready:
            raise Unavailable("The device is still warming up.")
        return {"status": "ready"}

    @routes.get("/v1/limits")
    async def limits() -> dict[str, float]:
        return settings.limits()

    return routes
