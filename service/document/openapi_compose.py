"""The part of the OpenAPI document that describes compositions."""

from typing import Any

from service.document.parts import REQUEST_TIMEOUT, operation, parameter
from service.document.schemas import reference

Json = dict[str, Any]
TAG = "compose"
EXAMPLE: Json = {
    "inputs": {"z": [[2.0, 1.0, 0.1], [0.3, 0.2, 1.5]], "y": [0, 2], "s": [0.0, 0.0]},
    "terms": {
        "ce": {
            "loss": "cross_entropy",
            "inputs": {"logits": "z", "targets": "y"},
            "params": {"label_smoothing": 0.1},
        },
        "dice": {
            "loss": "dice",
            "inputs": {"logits": "z[:, 1:]", "targets": "one_hot(y, 3)[:, 1:]"},
            "params": {"mode": "multilabel"},
        },
    },
    "total": "exp(-s[0]) * ce + s[0] + exp(-s[1]) * dice + s[1]",
}


def composition_paths() -> Json:
    """Return the path."""
    found = operation(
        "compose",
        "Evaluate several terms over shared inputs",
        TAG,
        "Composition",
        "The value, terms and gradients.",
    )
    return {
        "/v1/compose": {
            "post": {
                **found,
                "description": "Terms are losses of the catalogue or expressions; the total is their weighted sum or an "
                "expression. docs/expressions.md describes expressions.",
                "parameters": [parameter(REQUEST_TIMEOUT)],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": reference("CompositionRequest"), "example": EXAMPLE}
                    },
                },
            }
        }
    }
