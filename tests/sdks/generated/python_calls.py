"""Calls of a client that openapi-python-client makes; prints what comes of them as JSON."""

import json
import sys

from lossd_client import Client
from lossd_client.api.batch import batch
from lossd_client.api.classification import cross_entropy
from lossd_client.api.losses import evaluate
from lossd_client.models import (
    BatchDefaults,
    BatchDefaultsDtype,
    BatchDefaultsParams,
    BatchItem,
    BatchItemInputs,
    BatchItemParams,
    BatchRequest,
    BatchResults,
    CrossEntropyInputs,
    CrossEntropyRequest,
    Evaluation,
    EvaluationRequest,
    EvaluationRequestInputs,
    Problem,
)

client = Client(sys.argv[1])
logits = [[2.0, 1.0, 0.1]]
found = cross_entropy.sync(
    client=client, body=CrossEntropyRequest(CrossEntropyInputs(logits=logits, targets=[0]))
)
assert isinstance(found, Evaluation)
three = EvaluationRequestInputs.from_dict({"predictions": [3], "targets": [0]})
generic = evaluate.sync("mse", client=client, body=EvaluationRequest(three))
assert isinstance(generic, Evaluation)

five = BatchItemInputs.from_dict({"predictions": [5], "targets": [0]})
items = [BatchItem(loss="huber", inputs=five), BatchItem(loss="huber", inputs=five, params=BatchItemParams())]
delta = BatchDefaultsParams.from_dict({"delta": 3})
defaults = BatchDefaults(params=delta, gradients=False, dtype=BatchDefaultsDtype.FLOAT64)
many = batch.sync(client=client, body=BatchRequest(items=items, defaults=defaults))
assert isinstance(many, BatchResults)

problem = cross_entropy.sync(
    client=client, body=CrossEntropyRequest(CrossEntropyInputs(logits=logits, targets=[7]))
)
assert isinstance(problem, Problem)
print(
    json.dumps(
        {
            "value": found.value,
            "gradients": found.gradients["logits"],
            "generic": generic.value,
            "batch": [
                [
                    str(result.status),
                    result.value,
                    result.dtype,
                    len(result.gradients.additional_properties) if result.gradients else 0,
                ]
                for result in many.results
            ],
            "problem": [problem.status, problem.errors[0].pointer, problem.errors[0].code],
        }
    )
)
client.get_httpx_client().close()
