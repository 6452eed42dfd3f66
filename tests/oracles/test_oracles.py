"""Every loss equals its oracle in float64: at random points, at its domain's edges, at its anchors."""

import importlib
import json
import pkgutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tests.oracles
from service.catalogue.domains import Real
from service.catalogue.registry import AnyLoss, Catalogue
from service.catalogue.sample import draw_inputs, draw_params
from service.catalogue.spec import Params
from service.engine.bind import bind
from service.engine.call import Call, Request, Sent
from service.engine.evaluate import evaluate
from service.losses import CATALOGUE
from service.losses.regression import robust
from tests.conformance.cases import Variant, variants, with_inputs
from tests.oracles.oracle import Oracle, Oracles

MODULES = [m.name for m in pkgutil.walk_packages(tests.oracles.__path__, "tests.oracles.")]
ORACLES: list[Oracle] = [
    oracle
    for module in MODULES
    if not module.startswith("tests.oracles.test_")
    for value in vars(importlib.import_module(module)).values()
    if isinstance(value, Oracles)
    for oracle in value.all
]
ANCHORS = [
    json.loads(line)
    for file in sorted((Path(__file__).parent / "anchors").glob("*.jsonl"))
    for line in file.read_text().splitlines()
]
every_oracle = pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.loss)


def test_every_loss_has_one_oracle() -> None:
    assert not missing(CATALOGUE, {oracle.loss for oracle in ORACLES})
    assert sorted(oracle.loss for oracle in ORACLES) == sorted(CATALOGUE)


def test_a_loss_without_an_oracle_is_named_with_the_file_to_edit() -> None:
    [line] = missing(Catalogue(robust), {"log_cosh", "pseudo_huber", "smooth_l1"})
    assert line == (
        "huber has no oracle: write one for it in tests/oracles/regression/robust.py, as CONTRIBUTING.md shows"
    )


@every_oracle
def test_random_calls_equal_the_oracle(oracle: Oracle) -> None:
    for number, call in enumerate(random_calls(oracle)):
        compare(oracle, call, f"random call {number}")


@every_oracle
def test_edges_equal_the_oracle(oracle: Oracle) -> None:
    assert oracle.edges, f"name an edge of {oracle.loss} where its oracle is declared"
    for edge in oracle.edges:
        call = call_of(CATALOGUE[oracle.loss], edge.inputs, edge.params, reduction="sum")
        compare(oracle, call, str(edge))
        compare_gradients(call, edge.gradients, oracle.tolerance, str(edge))


@every_oracle
def test_large_real_predictions_stay_finite(oracle: Oracle) -> None:
    """Scores of ±1e4 must not overflow float32, unless the exact value does."""
    loss = CATALOGUE[oracle.loss]
    if oracle.grows:
        pytest.skip("the exact value is beyond float32")
    if not _real(variants(loss)[0]):
        pytest.skip("takes no predictions without bounds")
    for variant in variants(loss)[:2]:
        call = variant.call(dtype=torch.float32)
        large = {name: 1e4 * call.inputs[name].sign() for name in _real(variant) if name in call.inputs}
        evaluation = evaluate(with_inputs(call, **large))
        assert evaluation.value.isfinite(), variant.params
        assert all(gradient.isfinite().all() for gradient in evaluation.gradients.values()), variant.params


@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda anchor: anchor["loss"])
def test_anchor_values(anchor: dict[str, Any]) -> None:
    call = call_of(CATALOGUE[anchor["loss"]], anchor["inputs"], anchor.get("params", {}), reduction="mean")
    assert evaluate(call).value.item() == pytest.approx(anchor["value"], rel=2e-8, abs=1e-9)
    compare_gradients(call, anchor.get("gradients", {}), 2e-5, str(anchor))


def missing(catalogue: Catalogue, known: Collection[str]) -> list[str]:
    """Return a line for each loss without an oracle, with the file where it belongs."""
    return [
        f"{loss.name} has no oracle: write one for it in {_file_of(loss)}, as CONTRIBUTING.md shows"
        for loss in catalogue.values()
        if loss.name not in known
    ]


def random_calls(oracle: Oracle) -> Iterator[Call]:
    """Draw calls over every choice of the params, form, optional input and size that the oracle names."""
    loss = CATALOGUE[oracle.loss]
    for variant in variants(loss):
        for seed in range(3):
            yield variant.call(seed)
    for seed, (sizes, params) in enumerate(oracle.draws):
        chosen = {**draw_params(loss), **params}
        for row in loss.rows_for(chosen):
            yield _bind(loss, draw_inputs(loss, chosen, sizes=sizes, row=row, seed=seed), chosen)


def call_of(loss: AnyLoss, inputs: Mapping[str, Any], params: Mapping[str, Any], **options: Any) -> Call:
    """Bind a call whose inputs are nested lists, as a JSON client would send it in float64."""
    tensors = {name: torch.tensor(np.array(value)) for name, value in inputs.items()}
    tensors = {n: t if t.dtype == torch.bool else t.double() for n, t in tensors.items()}
    given = {name: _tuples(value) for name, value in params.items()}
    return _bind(loss, tensors, {**loss.defaults, **given}, **options)


def compare(oracle: Oracle, call: Call, where: str) -> None:
    """Assert that every output of a call equals the oracle's."""
    loss = CATALOGUE[oracle.loss]
    terms = loss.terms(call.inputs, call.params)
    arrays = {name: call.inputs[name].numpy() if name in call.inputs else None for name in loss.inputs}
    returned = oracle.reference(**arrays, **call.params)
    expected = cast(dict[str, Any], returned if isinstance(returned, dict) else {"loss": returned})
    found = {"loss": terms.loss, "divisor": terms.divisor, "mean_terms": terms.mean_terms, **terms.aux}
    declared = {n if o.role == "aux" else o.role for n, o in loss.outputs.items()}
    assert expected.keys() == declared, f"the oracle gives {sorted(expected)}, the loss {sorted(declared)}"
    for name, value in expected.items():
        tensor = found[name]
        if tensor is None:
            assert name == "divisor"
            tensor = torch.ones_like(terms.loss)
        want: NDArray[np.float64] = np.asarray(value, dtype=np.float64)
        assert tensor.shape == want.shape, f"{name}: {where}"
        np.testing.assert_allclose(
            tensor.numpy().astype(np.float64),
            want,
            rtol=oracle.tolerance,
            atol=oracle.tolerance,
            err_msg=f"{name}: {where}, params {dict(call.params)}",
        )


def compare_gradients(call: Call, expected: Mapping[str, Any], tolerance: float, where: str) -> None:
    """Assert that gradients are as given, where they are given."""
    gradients = evaluate(call._replace(gradients_of=tuple(expected))).gradients
    for name, value in expected.items():
        want = np.asarray(value, dtype=np.float64)
        found = np.where(np.isnan(want), np.nan, gradients[name].numpy())
        np.testing.assert_allclose(found, want, rtol=tolerance, atol=tolerance, err_msg=f"{name}: {where}")


def _file_of(loss: AnyLoss) -> str:
    """Return the path of the module of oracles that mirrors the module of a loss."""
    return loss.function.__module__.replace("service.losses", "tests.oracles").replace(".", "/") + ".py"


def _real(variant: Variant) -> list[str]:
    """Return the predictions that may be any number."""
    loss = variant.loss
    return [n for n in loss.predictions if isinstance(loss.inputs[n].form(variant.row).domain, Real)]


def _bind(loss: AnyLoss, inputs: Mapping[str, torch.Tensor], params: Params, **options: Any) -> Call:
    """Bind tensors as they are, in float64."""
    sent = {name: Sent(tensor) for name, tensor in inputs.items()}
    return bind(Request(loss=loss, inputs=sent, params=params, dtype=torch.float64, **options))


def _tuples(value: Any) -> Any:
    """Return lists as the tuples that params are."""
    return tuple(map(_tuples, cast(list[Any], value))) if isinstance(value, list) else value
