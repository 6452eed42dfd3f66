"""The Open Inference Protocol besides inference: server and model metadata, configuration, statistics."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service import VERSION
from service.admission.lifecycle import Lifecycle
from service.admission.problems import INFERENCE
from service.catalogue.registry import Catalogue
from service.doors.inference import find_model
from service.doors.operations import READ
from service.problems import Fault, Invalid
from service.telemetry.statistics import ModelStatistics
from service.wire.inference import metadata

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics", "parameters")
MODEL = f"{INFERENCE}/models/{{model}}", f"{INFERENCE}/models/{{model}}/versions/{{version}}"


def model_routes(
    lifecycle: Lifecycle, catalogue: Catalogue, statistics: Mapping[str, ModelStatistics]
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix=INFERENCE)

    @routes.api_route("", methods=READ)
    async def tell_server() -> dict[str, Any]:
        return {"name": "lossd", "version": VERSION, "extensions": EXTENSIONS}

    @routes.api_route("/health/live", methods=READ)
    async def live() -> dict[str, bool]:
        lifecycle.refuse_failed()
        return {"live": True}

    @routes.api_route("/health/ready", methods=READ)
    async def ready() -> dict[str, bool]:
        lifecycle.refuse_unready()
        return {"ready": True}

    @routes.api_route("/models", methods=READ)
    async def list_models() -> dict[str, list[str]]:
        return {"models": list(catalogue)}

    @routes.api_route("/models/stats", methods=READ)
    async def tell_all_statistics() -> dict[str, Any]:
        return _statistics(statistics, *catalogue)

    _add_repository(routes, catalogue)
    _add_models(routes, catalogue, statistics)
    return routes


def _add_repository(routes: APIRouter, catalogue: Catalogue) -> None:
    """Add the repository operations that clients may call; the models here are fixed."""

    @routes.post("/repository/index")
    async def index() -> list[dict[str, str]]:
        state = {"version": metadata.VERSION, "state": "READY", "reason": ""}
        return [{"name": name, **state} for name in catalogue]

    @routes.post("/repository/models/{name}/load")
    async def load(name: str) -> dict[str, Any]:
        find_model(catalogue, name)
        return {}

    @routes.post("/repository/models/{name}/unload")
    async def unload(name: str) -> None:
        loss = find_model(catalogue, name)
        raise Invalid(
            Fault(
                "",
                "fixed",
                f"Expected a model that can be unloaded; got {loss.name}, which is always loaded.",
            )
        )


def _add_models(routes: APIRouter, catalogue: Catalogue, statistics: Mapping[str, ModelStatistics]) -> None:
    """Add the routes of each model, by name, and by name and version."""

    async def tell_model(request: Request) -> JSONResponse:
        return JSONResponse(metadata.model(find_model(catalogue, **request.path_params)))

    async def tell_ready(request: Request) -> JSONResponse:
        return JSONResponse({"name": find_model(catalogue, **request.path_params).name, "ready": True})

    async def tell_config(request: Request) -> JSONResponse:
        return JSONResponse(metadata.config(find_model(catalogue, **request.path_params)))

    async def tell_statistics(request: Request) -> JSONResponse:
        return JSONResponse(_statistics(statistics, find_model(catalogue, **request.path_params).name))

    for path in MODEL:
        routes.add_route(path, tell_model)
        routes.add_route(f"{path}/ready", tell_ready)
        routes.add_route(f"{path}/config", tell_config)
        routes.add_route(f"{path}/stats", tell_statistics)


def _statistics(statistics: Mapping[str, ModelStatistics], *names: str) -> dict[str, Any]:
    return {"model_stats": [statistics[name].document(name) for name in names]}
