"""The peers: the service one would write in an afternoon with FastAPI, pydantic lists and torch, in two ways."""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from fastapi import FastAPI
from pydantic import BaseModel

torch.set_num_threads(1)
app = FastAPI()
"""Declares a response model: FastAPI's fastest way."""
dicts = FastAPI()
"""Returns a dict without a response model."""


class Inputs(BaseModel):
    """Logits of N samples and C classes, and the index of each sample's class."""

    logits: list[list[float]]
    targets: list[int]


class Request(BaseModel):
    """The request."""

    inputs: Inputs
    reduction: Literal["mean", "sum"] = "mean"
    gradients: bool = True


class Answer(BaseModel):
    """The answer."""

    value: float
    gradients: dict[str, list[list[float]]]


@app.post("/v1/losses/cross_entropy")
def cross_entropy(request: Request) -> Answer:
    value, gradients = evaluate(request)
    return Answer(value=value, gradients=gradients)


@dicts.post("/v1/losses/cross_entropy", response_model=None)
def cross_entropy_as_dict(request: Request) -> dict[str, Any]:
    value, gradients = evaluate(request)
    return {"value": value, "gradients": gradients}


def evaluate(request: Request) -> tuple[float, dict[str, list[list[float]]]]:
    """Compute the value and the gradients."""
    logits = torch.tensor(request.inputs.logits, requires_grad=request.gradients)
    targets = torch.tensor(request.inputs.targets)
    value = F.cross_entropy(logits, targets, reduction=request.reduction)
    gradients: dict[str, list[list[float]]] = {}
    if request.gradients:
        (gradient,) = torch.autograd.grad(value, logits)
        gradients["logits"] = cast(Any, gradient).tolist()
    return value.item(), gradients
