"""Hyper-parameters on the wire: their descriptions, schemas and accepted values."""

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Lt
from pydantic import ValidationError

from service.catalogue.declare import Param
from service.catalogue.spec import Values
from service.losses import CATALOGUE
from service.wire.params import params_model, schema, wanted

Weights = Annotated[tuple[float, ...], Values("C")]
Count = Annotated[int, Ge(1)] | None
Scale = Annotated[float, Gt(0)] | None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Annotated[float, Gt(0), Lt(1)], "a number greater than 0 and less than 1"),
        (Count, "a 64-bit integer of at least 1, or null"),
        (Literal["a", "b"], '"a" or "b"'),
        (Weights | None, "a list of numbers, or null"),
        (Annotated[float, Ge(0)] | Weights, "a number of at least 0 or a list of numbers"),
    ],
)
def test_what_is_wanted_in_words(annotation: Any, words: str) -> None:
    assert wanted(annotation) == words


def test_a_nullable_param_is_its_bare_type_without_a_default() -> None:
    found = schema(Param(Scale, None, None), "A scale.")
    assert found == {"type": "number", "format": "double", "exclusiveMinimum": 0, "description": "A scale."}


def test_a_param_of_several_types_is_untyped() -> None:
    found = schema(Param(Annotated[float, Ge(0)] | Weights, 1.0, Values("C")), "Weights.")
    assert "type" not in found
    assert "Takes a number of at least 0 or a list of numbers." in found["description"]
    assert found["x-dims"] == ["C"]


@pytest.mark.parametrize("sent", [8, 8.0])
def test_integers_may_be_written_as_floats(sent: float) -> None:
    model = params_model(CATALOGUE["cross_entropy"]).model_validate({"ignore_index": sent})
    assert repr(dict(model)["ignore_index"]) == "8"


@pytest.mark.parametrize(
    "sent",
    [
        {"ignore_index": 0.5},
        {"ignore_index": True},
        {"ignore_index": 2**63},
        {"ignore_index": 1e308},
        {"ignore_index": -(2.0**63)},
        {"label_smoothing": True},
        {"label_smoothing": "0.1"},
        {"weight": (1.0, "a")},
        {"weight": (1.0, True)},
        {"weight": ((1.0,),)},
    ],
)
def test_nothing_else_is_converted(sent: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params_model(CATALOGUE["cross_entropy"]).model_validate(sent)


def test_true_and_false_are_no_choices_of_numbers() -> None:
    with pytest.raises(ValidationError):
        params_model(CATALOGUE["contrastive"]).model_validate({"margin": 1.0, "similar_label": False})


def test_a_list_of_a_million_wrong_elements_is_one_error() -> None:
    with pytest.raises(ValidationError) as raised:
        params_model(CATALOGUE["cross_entropy"]).model_validate({"weight": ("a",) * 1_000_000})
    assert raised.value.error_count() == 1
