"""POST /v1/compose: several terms over shared inputs, compared with plain torch."""

import base64
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from service.app import create_app
from service.catalogue.registry import AnyLoss
from service.losses import CATALOGUE
from service.settings import Settings
from service.wire import describe
from tests.client import Client

Z = [[2.0, 1.0, 0.1], [0.3, 0.2, 1.5]]
Y = [0, 2]
TERMS: dict[str, Any] = {
    "ce": {
        "loss": "cross_entropy",
        "inputs": {"logits": "z", "targets": "y"},
        "params": {"label_smoothing": 0.1},
    },
    "dice": {
        "loss": "dice",
        "inputs": {"logits": "z[:, 1:]", "targets": "one_hot(y, 3)[:, 1:]"},
        "params": {"mode": "multilabel"},
        "weight": 0.5,
    },
    "l2": {"expression": "mean(z ** 2)", "weight": 1e-4},
}
TOTAL = "exp(-s[0]) * ce + s[0] + exp(-s[1]) * dice + s[1]"


def compose(client: Client, **body: Any) -> httpx.Response:
    return client.post("/v1/compose", json=body)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Return the sentences of a 422 by pointer."""
    assert answer.status_code == 422, answer.text
    return {one["pointer"]: one["detail"] for one in answer.json()["errors"]}


def unweighted() -> dict[str, Any]:
    """Return the terms without their weights."""
    return {name: {key: one for key, one in term.items() if key != "weight"} for name, term in TERMS.items()}


def terms_of(z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Compute the terms in plain torch; a dice is the one that the catalogue defines."""
    dice = CATALOGUE["dice"]
    inputs = {"logits": z[:, 1:], "targets": functional.one_hot(y, 3)[:, 1:].to(z.dtype)}
    return {
        "ce": functional.cross_entropy(z, y, label_smoothing=0.1),
        "dice": dice.terms(inputs, {**dice.defaults, "mode": "multilabel"}).loss.mean(),
        "l2": (z**2).mean(),
    }


def close(found: Any, expected: Tensor) -> bool:
    return bool(np.allclose(found, expected.detach().numpy(), rtol=1e-12, atol=1e-14))


def test_the_default_total_is_the_weighted_sum(client: Client) -> None:
    answer = compose(client, inputs={"z": Z, "y": Y}, terms=TERMS, dtype="float64").json()
    z = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    terms = terms_of(z, torch.tensor(Y))
    total = terms["ce"] + 0.5 * terms["dice"] + 1e-4 * terms["l2"]
    total.backward()
    assert close(answer["value"], total) and z.grad is not None
    assert answer["gradients"].keys() == {"z"} and close(answer["gradients"]["z"], z.grad)
    assert all(close(answer["terms"][name]["value"], term) for name, term in terms.items())
    assert answer["terms"]["ce"]["divisor"] == 2 and "divisor" not in answer["terms"]["l2"]
    assert answer["dtype"] == "float64" and answer["device"] == "cpu"


def test_weights_are_learned_in_a_total(client: Client) -> None:
    s = [0.3, -0.2]
    answer = compose(
        client,
        inputs={"z": Z, "y": Y, "s": s},
        terms=unweighted(),
        total=TOTAL,
        gradients=["z", "s"],
        per_term="gradients",
        grad_output=2.5,
        dtype="float64",
    ).json()
    z, weights = (torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (Z, s))
    terms = terms_of(z, torch.tensor(Y))
    total = (
        torch.exp(-weights[0]) * terms["ce"]
        + weights[0]
        + torch.exp(-weights[1]) * terms["dice"]
        + weights[1]
    )
    (2.5 * total).backward(retain_graph=True)
    assert close(answer["value"], total) and z.grad is not None and weights.grad is not None
    assert close(answer["gradients"]["z"], z.grad) and close(answer["gradients"]["s"], weights.grad)
    for name, term in terms.items():
        [slope] = torch.autograd.grad(term, z, retain_graph=True)
        assert answer["terms"][name]["gradients"].keys() == {"z"}
        assert close(answer["terms"][name]["gradients"]["z"], slope)


def test_norms_are_of_each_term_s_own_gradient(client: Client) -> None:
    asked = {"inputs": {"z": Z, "y": Y}, "terms": TERMS, "dtype": "float64"}
    slopes = compose(client, **asked, per_term="gradients").json()["terms"]
    norms = compose(client, **asked, per_term="norms").json()["terms"]
    for name, term in norms.items():
        assert close(
            term["norms"]["z"], torch.tensor(slopes[name]["gradients"]["z"], dtype=torch.float64).norm()
        )


def test_a_term_has_weights_of_samples_and_a_divisor(client: Client) -> None:
    answer = compose(
        client,
        inputs={"p": [1.0, 2.0, 4.0], "t": [0.0, 0.0, 1.0], "w": [1.0, 0.0, 3.0]},
        terms={
            "weighted": {"loss": "mse", "inputs": {"predictions": "p", "targets": "t"}, "sample_weight": "w"},
            "summed": {"loss": "mse", "inputs": {"predictions": "2 * p", "targets": "t"}, "reduction": "sum"},
            "part": {"loss": "mse", "inputs": {"predictions": "p", "targets": "t"}, "divide_by": 10},
        },
        dtype="float64",
    ).json()
    values = {name: (term["value"], term["divisor"]) for name, term in answer["terms"].items()}
    assert values == {"weighted": (7.0, 4.0), "summed": (69.0, 3.0), "part": (1.4, 3.0)}
    expected = [0.5 + 8 + 0.2, 16 + 0.4, 4.5 + 28 + 0.6]
    assert np.allclose(answer["gradients"]["p"], expected, rtol=1e-14)


def test_targets_have_gradients_if_asked_for_by_name(client: Client) -> None:
    inputs = {"p": [1.0, 2.0], "t": [0.0, 1.5]}
    terms = {"a": {"loss": "mse", "inputs": {"predictions": "p", "targets": "t"}}}
    assert compose(client, inputs=inputs, terms=terms).json()["gradients"].keys() == {"p"}
    assert compose(client, inputs=inputs, terms=terms, gradients=False).json()["gradients"] == {}
    named = compose(client, inputs=inputs, terms=terms, gradients=["t"]).json()
    assert named["gradients"] == {"t": [-1.0, -0.5]}
    built = {"a": {"loss": "mse", "inputs": {"predictions": "p", "targets": "t * 1"}}}
    assert compose(client, inputs=inputs, terms=built).json()["gradients"].keys() == {"p", "t"}


def test_indices_have_no_gradient(client: Client) -> None:
    asked: dict[str, Any] = {
        "inputs": {"z": Z, "y": Y, "i": [[0], [2]]},
        "terms": {
            "a": {"expression": "mean(one_hot(y, 3) * z)"},
            "b": {"expression": "mean(gather(z, i, 1))"},
        },
    }
    assert compose(client, **asked).json()["gradients"].keys() == {"z"}
    assert "/gradients/0" in faults(compose(client, **asked, gradients=["y"]))
    shaped = {"a": {"expression": "mean(gather(z, y[:, None], 1))"}}
    answer = compose(client, inputs={"z": Z, "y": Y}, terms=shaped).json()
    assert answer["gradients"].keys() == {"z"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "expression",
    ["sum(one_hot(y, 2100) * z)", "gather(z, y[:, None][0], 0)[0]", "gather(z, y, 0)[0] + 0 * y[0]"],
)
def test_an_index_is_not_rounded(client: Client, dtype: str, expression: str) -> None:
    asked = {"inputs": {"z": [0.0] * 2049 + [1.0] + [0.0] * 50, "y": [2049]}, "dtype": dtype}
    terms = {"a": {"expression": expression}}
    alone = compose(client, **asked, terms=terms).json()
    assert alone["value"] == 1 and alone["gradients"]["z"][2049] == 1
    items = [{**asked, "terms": terms}] * 3
    for found in client.post("/v1/batch", json={"items": items}).json()["results"]:
        assert found["value"] == 1 and found["gradients"] == alone["gradients"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_round_inputs_and_results_alone(client: Client, dtype: str) -> None:
    exact = {"float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    answer = compose(
        client,
        inputs={"z": [[0.1, 0.7]], "y": [1]},
        terms={
            "a": {"loss": "cross_entropy", "inputs": {"logits": "z * 3", "targets": "y"}},
            "b": {"expression": "sum(z * 1.1)"},
        },
        total="a * b",
        dtype=dtype,
    ).json()
    z = torch.tensor([[0.1, 0.7]]).to(exact).float().requires_grad_()
    total = functional.cross_entropy(z * 3, torch.tensor([1])) * (z * 1.1).sum()
    total.backward()
    assert z.grad is not None
    assert answer["value"] == total.to(exact).item()
    assert torch.equal(torch.tensor(answer["gradients"]["z"]), z.grad.to(exact).float())


def test_bytes_are_answered_with_bytes(client: Client) -> None:
    z = np.array(Z, "<f4")
    packed = {"dtype": "float32", "shape": [2, 3], "data": base64.b64encode(z.tobytes()).decode()}
    asked = {"terms": TERMS, "per_term": "gradients"}
    plain = compose(client, inputs={"z": Z, "y": Y}, **asked).json()
    answer = compose(client, inputs={"z": packed, "y": Y}, **asked, encoding="base64").json()
    raw = answer["gradients"]["z"]
    found = np.frombuffer(base64.b64decode(raw["data"]), "<f4").reshape(raw["shape"])
    assert found.tolist() == np.array(plain["gradients"]["z"], "<f4").tolist()
    assert answer["value"] == plain["value"]
    assert answer["terms"]["l2"]["gradients"]["z"]["shape"] == [2, 3]


@pytest.mark.parametrize("loss", CATALOGUE.values(), ids=lambda loss: loss.name)
def test_a_loss_alone_is_the_same_as_its_own_call(client: Client, loss: AnyLoss) -> None:
    example = describe.example(loss)
    params = {"params": example["params"]} if "params" in example else {}
    term = {"loss": loss.name, "inputs": {name: name for name in example["inputs"]}, **params}
    alone = client.evaluate(loss.name, inputs=example["inputs"], **params, dtype="float64").json()
    answer = compose(client, inputs=example["inputs"], terms={"term": term}, dtype="float64").json()
    assert answer["value"] == alone["value"]
    assert answer["gradients"] == alone["gradients"]
    assert answer["terms"]["term"].get("aux") == alone.get("aux")
    assert answer["terms"]["term"]["divisor"] == alone["divisor"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no terms": ({"inputs": {"z": Z}, "terms": {}}, "/terms"),
    "terms missing": ({"inputs": {"z": Z}}, "/terms"),
    "neither": ({"inputs": {"z": Z}, "terms": {"a": {"weight": 1}}}, "/terms/a"),
    "both": ({"inputs": {"z": Z}, "terms": {"a": {"loss": "mse", "expression": "z"}}}, "/terms/a"),
    "unknown loss": (
        {"inputs": {"z": Z}, "terms": {"a": {"loss": "mze", "inputs": {"predictions": "z"}}}},
        "/terms/a/loss",
    ),
    "unknown param": (
        {
            "inputs": {"z": Z},
            "terms": {
                "a": {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}, "params": {"n": 1}}
            },
        },
        "/terms/a/params/n",
    ),
    "missing input": (
        {"inputs": {"z": Z}, "terms": {"a": {"loss": "mse", "inputs": {"predictions": "z"}}}},
        "/terms/a/inputs/targets",
    ),
    "unknown name": ({"inputs": {"z": Z}, "terms": {"a": {"expression": "mean(y)"}}}, "/terms/a/expression"),
    "a term in a term": (
        {"inputs": {"z": Z}, "terms": {"a": {"expression": "mean(z)"}, "b": {"expression": "a + sum(z)"}}},
        "/terms/b/expression",
    ),
    "no number": ({"inputs": {"z": Z}, "terms": {"a": {"expression": "z"}}}, "/terms/a/expression"),
    "a mask": ({"inputs": {"z": Z}, "terms": {"a": {"expression": "sum(z) > 0"}}}, "/terms/a/expression"),
    "total of no number": (
        {"inputs": {"z": Z}, "terms": {"a": {"expression": "sum(z)"}}, "total": "a * z"},
        "/total",
    ),
    "weight beside total": (
        {"inputs": {"z": Z}, "terms": {"a": {"expression": "sum(z)", "weight": 2}}, "total": "a"},
        "/terms/a/weight",
    ),
    "a term and an input": ({"inputs": {"z": Z}, "terms": {"z": {"expression": "sum(z)"}}}, "/terms/z"),
    "a function": ({"inputs": {"z": Z}, "terms": {"exp": {"expression": "sum(z)"}}}, "/terms/exp"),
    "an input as a function": (
        {"inputs": {"z": Z, "sum": [1.0]}, "terms": {"a": {"expression": "mean(z)"}}},
        "/inputs/sum",
    ),
    "unused": (
        {"inputs": {"z": Z, "y": [1.0]}, "terms": {"a": {"expression": "mean(z)"}}},
        "/inputs/y",
    ),
    "reduction none": (
        {
            "inputs": {"z": Z},
            "terms": {
                "a": {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}, "reduction": "none"}
            },
        },
        "/terms/a/reduction",
    ),
    "reduction of all": (
        {"inputs": {"z": Z}, "terms": {"a": {"expression": "mean(z)"}}, "reduction": "mean"},
        "/reduction",
    ),
    "shapes": (
        {
            "inputs": {"z": Z, "y": Y},
            "terms": {"a": {"loss": "mse", "inputs": {"predictions": "z", "targets": "y * 1.0"}}},
        },
        "/terms/a/inputs/targets",
    ),
    "domain": (
        {
            "inputs": {"z": Z, "y": Y},
            "terms": {"a": {"loss": "cross_entropy", "inputs": {"logits": "z[:, :2]", "targets": "y"}}},
        },
        "/terms/a/inputs/targets",
    ),
    "index": (
        {"inputs": {"y": Y}, "terms": {"a": {"expression": "sum(one_hot(y, 2))"}}},
        "/terms/a/expression",
    ),
    "weight of unknown": (
        {
            "inputs": {"z": Z},
            "terms": {
                "a": {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}, "sample_weight": "w"}
            },
        },
        "/terms/a/sample_weight",
    ),
    "negative divisor": (
        {
            "inputs": {"z": Z},
            "terms": {"a": {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}, "divide_by": -1}},
        },
        "/terms/a/divide_by",
    ),
    "gradient of integers": (
        {
            "inputs": {"z": Z, "y": Y},
            "terms": {"a": {"loss": "cross_entropy", "inputs": {"logits": "z", "targets": "y"}}},
            "gradients": ["y"],
        },
        "/gradients/0",
    ),
}


@pytest.mark.parametrize(("body", "pointer"), WRONG.values(), ids=WRONG)
def test_faults_lead_to_their_places(client: Client, body: dict[str, Any], pointer: str) -> None:
    found = faults(compose(client, **body))
    assert [*found] == [pointer]
    assert found[pointer].startswith("Expected ") and "; got " in found[pointer]


def test_a_fault_in_an_expression_has_its_column(client: Client) -> None:
    answer = compose(
        client,
        inputs={"z": Z, "v": [1.0, 2.0]},
        terms={"a": {"expression": "sum(z) + sum(z * v)"}, "b": {"expression": "1 +* 2"}},
    )
    [syntax] = answer.json()["errors"]
    assert (syntax["pointer"], syntax["column"]) == ("/terms/b/expression", 4)
    answer = compose(
        client, inputs={"z": Z, "v": [1.0, 2.0]}, terms={"a": {"expression": "sum(z) + sum(z * v)"}}
    )
    [shape] = answer.json()["errors"]
    assert shape["pointer"] == "/terms/a/expression"
    assert "[2, 3]" in shape["detail"] and "[2]" in shape["detail"] and 14 <= shape["column"] <= 16


def test_faults_of_all_terms_are_listed(client: Client) -> None:
    terms = {
        "a": {"loss": "cross_entropy", "inputs": {"logits": "z", "targets": "y + 5"}},
        "b": {"loss": "bce", "inputs": {"probabilities": "z", "targets": "one_hot(y, 3)"}},
    }
    found = faults(compose(client, inputs={"z": Z, "y": Y}, terms=terms))
    assert [*found] == ["/terms/a/inputs/targets", "/terms/b/inputs/probabilities"]


def test_numbers_that_are_not_finite_are_counted(client: Client) -> None:
    answer = compose(
        client, inputs={"z": [0.0, 1.0]}, terms={"a": {"expression": "sum(log(z))"}}, total="a - 1"
    ).json()
    assert answer["value"] is None and answer["terms"]["a"]["value"] is None
    assert answer["nonfinite"] == {"value": 1, "gradients.z": 1, "terms.a.value": 1}
    for per_term in ("norms", "gradients"):
        answer = compose(
            client, inputs={"z": [0.0, 1.0]}, terms={"a": {"expression": "sum(sqrt(z))"}}, per_term=per_term
        ).json()
        assert answer["nonfinite"] == {"gradients.z": 1, f"terms.a.{per_term}.z": 1}


def test_no_norm_overflows_or_vanishes(client: Client) -> None:
    for size in (1e200, 3e-200, 5e-324, 1.7e308):
        terms = {"a": {"expression": f"3 * {size / 4!r} * z[0] + 4 * {size / 4!r} * z[1]"}}
        asked = {"inputs": {"z": [0.0, 0.0]}, "terms": terms, "per_term": "norms", "dtype": "float64"}
        answer = compose(client, **asked).json()
        expected = math.hypot(*answer["gradients"]["z"])
        assert math.isclose(
            answer["terms"]["a"]["norms"]["z"] or math.inf, expected or math.inf, rel_tol=1e-15
        )


def test_work_over_the_limit_is_refused_before_memory_is_taken(client: Client) -> None:
    for expression in ("sum(one_hot(z, 1000000000))", "sum(z @ z) + sum(one_hot(one_hot(z, 60000), 60000))"):
        answer = compose(
            client, inputs={"z": [[0.0, 1.0], [0.0, 1.0]]}, terms={"a": {"expression": expression}}
        )
        assert answer.status_code == 413 and "LOSSD_MAX_WORK" in answer.json()["detail"]
        assert answer.json()["errors"][0]["pointer"] == "/terms/a/expression"
    terms = {f"t{place}": {"expression": "mean(z)"} for place in range(65)}
    assert "/terms" in faults(compose(client, inputs={"z": Z}, terms=terms))


def items_of(count: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(1)
    return [
        {
            "id": place,
            "inputs": {"z": generator.normal(size=(2, 3)).tolist(), "y": Y, "s": [0.1, place / 10]},
            "terms": unweighted(),
            "total": TOTAL,
            "per_term": "gradients",
            "dtype": "float64",
        }
        for place in range(count)
    ]


def flat(value: Any) -> list[float]:
    """Return all numbers of an answer in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, list):
        return [number for one in value for number in flat(one)]
    return [value] if isinstance(value, int | float) else []


def assert_same(found: dict[str, Any], alone: dict[str, Any]) -> None:
    rest = {key: one for key, one in found.items() if key not in ("id", "status")}
    assert rest.keys() == alone.keys()
    assert np.allclose(flat(rest), flat(alone), rtol=1e-13, atol=1e-16)


def test_items_are_the_same_as_alone(client: Client) -> None:
    items = items_of(5)
    items[3]["inputs"]["y"] = [0, 3]
    other = {"loss": "mse", "inputs": {"predictions": [1.0], "targets": [0.0]}}
    answer = client.post("/v1/batch", json={"items": [*items, other]}).json()
    assert [one["status"] for one in answer["results"]] == ["ok", "ok", "ok", "error", "ok", "ok"]
    for item, found in zip(items, answer["results"], strict=False):
        alone = compose(client, **{key: one for key, one in item.items() if key != "id"})
        if found["status"] == "ok":
            assert found["id"] == item["id"]
            assert_same(found, alone.json())
        else:
            assert found["error"]["errors"] == alone.json()["errors"]


def test_lines_of_a_stream_are_the_same_as_alone(client: Client) -> None:
    items = items_of(3)
    lines = b"".join(orjson.dumps(item) + b"\n" for item in items)
    answer = client.post("/v1/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    for item, line in zip(items, answer.text.splitlines(), strict=True):
        alone = compose(client, **{key: one for key, one in item.items() if key != "id"}).json()
        assert_same(json.loads(line), alone)


def test_weighted_terms_are_computed_together_too(client: Client) -> None:
    items = [
        {
            "inputs": {"p": [1.0, 2.0 + place], "t": [0.0, 0.0], "w": [1.0, place]},
            "terms": {
                "a": {"loss": "mse", "inputs": {"predictions": "p", "targets": "t"}, "sample_weight": "w"}
            },
        }
        for place in range(3)
    ]
    answer = client.post("/v1/batch", json={"items": items}).json()
    for item, found in zip(items, answer["results"], strict=True):
        assert_same(found, compose(client, **item).json())


def test_without_fusing_items_have_the_bits_that_they_have_alone() -> None:
    client = Client(create_app(Settings(device="cpu", fuse=False)))
    items = items_of(3)
    answer = client.post("/v1/batch", json={"items": items}).json()
    for item, found in zip(items, answer["results"], strict=True):
        alone = compose(client, **{key: one for key, one in item.items() if key != "id"}).json()
        assert {key: one for key, one in found.items() if key not in ("id", "status")} == alone


def test_defaults_of_a_batch_reach_compositions(client: Client) -> None:
    item = {"inputs": {"z": Z}, "terms": {"a": {"expression": "mean(z)"}}}
    defaults = {"dtype": "float64", "gradients": False}
    [found] = client.post("/v1/batch", json={"items": [item], "defaults": defaults}).json()["results"]
    assert found["dtype"] == "float64" and found["gradients"] == {}


def test_members_of_other_items_may_be_null(client: Client) -> None:
    item = {
        "inputs": {"z": Z},
        "terms": {"a": {"expression": "mean(z)"}},
        "sample_weight": None,
        "loss": None,
    }
    mixed = {**item, "loss": "mse"}
    first, second = client.post("/v1/batch", json={"items": [item, mixed]}).json()["results"]
    assert first["status"] == "ok"
    assert [one["pointer"] for one in second["error"]["errors"]] == ["/loss"]


def test_items_are_counted(client: Client) -> None:
    def count() -> float:
        lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('lossd_items_total{loss="compose",status="200"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = count()
    client.post("/v1/batch", json={"items": items_of(3)})
    compose(client, inputs={"z": Z, "y": Y}, terms=TERMS)
    assert count() == before + 4


def test_a_loss_that_matches_on_the_host_is_a_term_too(client: Client) -> None:
    example = describe.example(CATALOGUE["detr"])
    term = {"loss": "detr", "inputs": {name: name for name in example["inputs"]}}
    item = {"inputs": example["inputs"], "terms": {"set": term}, "dtype": "float64"}
    wrong = {
        **item,
        "inputs": {**example["inputs"], "boxes": np.full_like(example["inputs"]["boxes"], 1e300).tolist()},
    }
    alone = compose(client, **item).json()
    assert "matching" in alone["terms"]["set"]["aux"]
    results = client.post("/v1/batch", json={"items": [item, item, wrong]}).json()["results"]
    for found in results[:2]:
        assert_same(found, alone)
    assert all(one["pointer"].startswith("/terms/set/inputs") for one in results[2]["error"]["errors"])


@pytest.mark.parametrize("count", [1, 3000, 200_000])
def test_an_expression_may_be_long_in_a_body_of_any_length(client: Client, count: int) -> None:
    expression = "sum(z)" + " + z[0]" * 580
    terms = {
        "a": {"expression": expression},
        "b": {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}},
    }
    body = {"inputs": {"z": [0.125] * count}, "terms": terms, "total": f"{expression} + a + b"}
    answer = compose(client, **body, gradients=["z"]).json()
    assert answer["value"] == 2 * 0.125 * (count + 580), answer
    [fault] = faults(compose(client, **{**body, "total": expression * 2})).values()
    assert "4096" in fault


@pytest.mark.parametrize("z", [1.0, [1.0], [[1.0]], [1.0, 2.0], []])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_expanded_gradients_are_answered_with_bytes(client: Client, z: Any, dtype: str) -> None:
    asked = {"inputs": {"z": z}, "terms": {"a": {"expression": "sum(z)"}}, "dtype": dtype}
    packed = compose(client, **asked, encoding="base64").json()["gradients"]["z"]
    assert packed["shape"] == list(np.shape(z))
    one = {"float32": b"\0\0\x80\x3f", "bfloat16": b"\x80\x3f"}[dtype]
    assert base64.b64decode(packed["data"]) == one * int(np.size(z))


def test_gradients_may_name_all_inputs(client: Client) -> None:
    names = [f"{'x' * 50}{place}" for place in range(256)]
    terms = {f"t{place}": {"expression": " + ".join(names[place::8])} for place in range(8)}
    answer = compose(client, inputs=dict.fromkeys(names, 1), terms=terms, gradients=names).json()
    assert answer["gradients"] == dict.fromkeys(names, 1.0)


def test_members_of_a_term_may_be_null(client: Client) -> None:
    loss = {"loss": "mse", "inputs": {"predictions": "z", "targets": "z"}, "expression": None}
    terms = {"a": {"expression": "mean(z)", "loss": None, "inputs": None, "params": None}, "b": loss}
    assert compose(client, inputs={"z": Z}, terms=terms).status_code == 200
    terms = {"a": {"expression": "mean(z)", "loss": None, "reduction": "sum"}}
    assert [*faults(compose(client, inputs={"z": Z}, terms=terms))] == ["/terms/a/reduction"]


def test_nulls_alone_are_no_inputs_or_terms(client: Client) -> None:
    found = faults(compose(client, inputs={"z": None}, terms={"a": None}))
    assert [*found] == ["/terms", "/inputs"]
    assert [*faults(compose(client, inputs={"z": 1}, terms={"a": None}, total="z"))] == ["/terms"]


@pytest.mark.parametrize("name", ["\0", "z\0"])
def test_a_name_may_not_have_a_null_character(client: Client, name: str) -> None:
    terms = {"a": {"expression": "z"}}
    assert f"/inputs/{name}" in faults(compose(client, inputs={"z": 1, name: 2}, terms=terms))
    assert f"/terms/{name}" in faults(compose(client, inputs={"z": 1}, terms={**terms, name: terms["a"]}))
    body = {"inputs": {"predictions": [1], "targets": [1]}, "slices": {name: ["a"]}}
    assert f"/slices/{name}" in faults(client.post("/v1/metrics/accuracy", json=body))


def test_compositions_of_a_batch_that_differ_are_bounded(client: Client) -> None:
    long, bad = "z" + " + z * 2" * 500, "z" + " + z * 2" * 500 + " + q"
    items = [
        {"inputs": {"z": 1}, "terms": {"a": {"expression": f"{long} + {place}"}}} for place in range(300)
    ]
    same = [{"inputs": {"z": 1}, "terms": {"a": {"expression": bad}}}] * 300
    weighted = {
        "loss": "cross_entropy",
        "inputs": {"logits": "z", "targets": "y"},
        "params": {"weight": [1, 2, 3]},
    }
    alike = [{"inputs": {"z": Z, "y": Y}, "terms": {"a": weighted}}] * 2000
    start = time.process_time()
    results = client.post("/v1/batch", json={"items": [*alike, *same, *items]}).json()["results"]
    assert time.process_time() - start < 20
    assert all(one["status"] == "ok" for one in results[:2000])
    assert {one["error"]["status"] for one in results[2000:2300]} == {422}
    assert results[2300]["status"] == "ok" and results[-1]["error"]["status"] == 413
    large = {"inputs": {"z": 1}, "terms": {"a": {"expression": "sum(one_hot(z, 1000000000))"}}}
    results = client.post("/v1/batch", json={"items": [*[large] * 2000, *items[:1]]}).json()["results"]
    assert {one["error"]["status"] for one in results[:-1]} == {413} and results[-1]["status"] == "ok"


def test_the_page_s_example_is_answered_as_printed(client: Client) -> None:
    page = Path("docs/compose.md").read_text()
    request, printed = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)[:2])
    answer = compose(client, **request).json()
    assert rounded(answer) == printed


def rounded(value: Any) -> Any:
    """Round all numbers as the page does."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
