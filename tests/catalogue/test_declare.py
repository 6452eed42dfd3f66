"""A declaration that is incomplete fails where it is made, at import."""

import math
from typing import Annotated, Any

import pytest
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Prediction, Scales, Target, Unreduced
from service.wire import describe

DOCSTRING = """Squared error.

Formula:
    e^2

Args:
    predictions: Estimated values.
    targets: Observed values.

Use when:
    Always.

Pitfalls:
    None.

Sources:
    - Gauss (1809)
"""


def declare(docstring: str, work: str | tuple[str, ...] = (), **promises: Any) -> AnyLoss:
    def square(
        predictions: Annotated[Tensor, Prediction("...")], targets: Annotated[Tensor, Target("...")]
    ) -> Annotated[Tensor, Unreduced("...")]:
        return (predictions - targets).square()

    square.__doc__ = docstring
    return loss(title="Square", tasks=("regression",), work=work, **promises)(square)


def test_a_whole_declaration_is_taken() -> None:
    declare(DOCSTRING)


@pytest.mark.parametrize("section", ["Formula", "Args", "Use when", "Pitfalls", "Sources"])
def test_a_missing_section_is_refused(section: str) -> None:
    with pytest.raises(ValueError, match=section):
        declare(DOCSTRING.replace(f"{section}:", "Note:"))


def test_args_must_be_the_signatures() -> None:
    with pytest.raises(ValueError, match="Args describes"):
        declare(DOCSTRING.replace("targets: Observed", "truths: Observed"))


def test_an_argument_without_a_role_is_refused() -> None:
    def bare(predictions: Tensor) -> Annotated[Tensor, Unreduced("...")]:
        return predictions

    bare.__doc__ = DOCSTRING.replace("    targets: Observed values.\n", "")
    with pytest.raises(TypeError, match="has no Input"):
        loss(title="Bare", tasks=("regression",))(bare)


def test_work_is_the_elements_of_the_inputs_and_those_that_its_patterns_make() -> None:
    sizes, shapes = {"...": (3, 4)}, {"predictions": (3, 4), "targets": (3, 4)}
    assert declare(DOCSTRING).elements(shapes, sizes, {}) == 24
    assert declare(DOCSTRING, ("10 ...", "5")).elements(shapes, sizes, {}) == 24 + 120 + 5
    assert declare(DOCSTRING, ("2 predictions", "targets")).elements(shapes, sizes, {}) == 24 + 24 + 12


def test_work_names_sizes_inputs_and_params_alone() -> None:
    with pytest.raises(ValueError, match=r"its work names \['rounds'\]"):
        declare(DOCSTRING, "... rounds")


def test_a_range_holds_for_all_params_or_is_made_from_them() -> None:
    assert declare(DOCSTRING).bounds({}) == (None, None)
    assert declare(DOCSTRING, range=(0, None)).bounds({}) == (0, None)
    assert declare(DOCSTRING, range=lambda params: (0, params["most"])).bounds({"most": 3.0}) == (0, 3.0)


def test_a_loss_scales_with_all_its_inputs_unless_some_are_named() -> None:
    assert declare(DOCSTRING, scales=2).scales == Scales(2, ("predictions", "targets"))
    assert declare(DOCSTRING, scales=Scales(2, ("targets",))).scales == Scales(2, ("targets",))


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        ({"range": (1, 0)}, "range from 1 to 0 is empty"),
        ({"unit": " "}, "unit needs a reason"),
        ({"scales": Scales(1, ("widths",))}, r"scales name \['widths'\]"),
        ({"scales": Scales(1, along=("delta",))}, r"scales name \['delta'\]"),
    ],
)
def test_a_promise_that_cannot_be_meant_is_refused(promise: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        declare(DOCSTRING, **promise)


def test_what_is_promised_is_shown() -> None:
    bounded = declare(DOCSTRING, range=(0, None), scales=2)
    shown = describe.entry(bounded)
    assert shown["range"] == {"least": 0, "depends_on_params": False}
    assert shown["scales"] == {"degree": 2, "inputs": ["predictions", "targets"]}
    assert describe.range_in_words(bounded) == "at least 0"
    assert describe.range_in_words(declare(DOCSTRING, range=(-1, math.log(2)))) == "from -1 to 0.69315"
    assert describe.range_in_words(declare(DOCSTRING)) == ""
