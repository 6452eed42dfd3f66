"""The routes of losses: the catalogue, one entry, and the evaluation of one loss."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.api import body
from service.api.stages import Stages
from service.catalogue.registry import AnyLoss, Catalogue, UnknownLoss
from service.engine.evaluate import evaluate
from service.problems import NotFound
from service.settings import Settings
from service.wire import describe, native

SMALL = 8 * 1024
"""Bodies up to this many bytes are worked on where they arrive: a hand-over to a thread costs more."""


def router(
    catalogue: Catalogue, settings: Settings, device: torch.device, pool: ThreadPoolExecutor
) -> APIRouter:
    """Return the routes, which evaluate on a device; larger bodies are worked on in the pool."""
    routes = APIRouter()

    @routes.api_route("/v1/losses", methods=["GET", "HEAD"])
    async def list_losses(task: str | None = None, q: str | None = None) -> dict[str, Any]:
        found = [loss for loss in catalogue.values() if _matches(loss, task, q)]
        return {"losses": [describe.brief(loss) for loss in found]}

    async def one_loss(request: Request) -> Response:
        loss = find(catalogue, request.path_params["name"])
        if request.method != "POST":
            return JSONResponse(describe.entry(loss))
        sent = await body.read(request, settings)
        stages: Stages = request.scope["state"]["stages"]
        if len(sent) <= SMALL:
            answer = _answer(loss, sent, device, stages)
        else:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(pool, _answer, loss, sent, device, stages)
        return Response(answer, media_type="application/json")

    # a plain route, and one for both methods: FastAPI's machinery would cost a small call a third of its
    # time, and two routes of one path would each name only their own method in a 405
    routes.add_route("/v1/losses/{name}", one_loss, methods=["GET", "POST"])
    return routes


def find(catalogue: Catalogue, name: str) -> AnyLoss:
    """Look a loss up by name or alias.

    Raises:
        NotFound: there is none; names the closest.
    """
    try:
        return catalogue[name]
    except UnknownLoss as error:
        raise NotFound(str(error)) from None


def _answer(loss: AnyLoss, sent: bytes, device: torch.device, stages: Stages) -> bytes:
    """Decode, evaluate, encode."""
    with stages.measure("decode"):
        decoded = native.decode(loss, sent)
    with stages.measure("compute"):
        evaluation = evaluate(decoded.call, device)
    with stages.measure("encode"):
        return native.encode(decoded, evaluation, device)


def _matches(loss: AnyLoss, task: str | None, query: str | None) -> bool:
    """Tell whether a loss is for a task, and mentions every word of a query."""
    if task and task.lower() not in loss.tasks:
        return False
    prose = loss.prose
    text = " ".join(
        [loss.name, *loss.aliases, loss.title, *loss.tasks, prose.summary, prose.use_when]
    ).lower()
    return all(word in text for word in (query or "").lower().split())
