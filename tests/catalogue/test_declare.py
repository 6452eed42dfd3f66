"""A declaration that is incomplete fails where it is made, at import."""

from typing import Annotated

import pytest
from torch import Tensor

from service.catalogue.declare import loss
from service.catalogue.registry import AnyLoss
from service.catalogue.spec import Prediction, Target, Unreduced

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


def declare(docstring: str, work: str | tuple[str, ...] = ()) -> AnyLoss:
    def square(
        predictions: Annotated[Tensor, Prediction("...")], targets: Annotated[Tensor, Target("...")]
    ) -> Annotated[Tensor, Unreduced("...")]:
        return (predictions - targets).square()

    square.__doc__ = docstring
    return loss(title="Square", tasks=("regression",), work=work)(square)


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
    with pytest.raises(TypeError, match="carries no Input"):
        loss(title="Bare", tasks=("regression",))(bare)


def test_work_is_the_elements_of_the_inputs_and_those_that_its_patterns_make() -> None:
    sizes, shapes = {"...": (3, 4)}, {"predictions": (3, 4), "targets": (3, 4)}
    assert declare(DOCSTRING).elements(shapes, sizes, {}) == 24
    assert declare(DOCSTRING, ("10 ...", "5")).elements(shapes, sizes, {}) == 24 + 120 + 5


def test_work_names_sizes_and_params_alone() -> None:
    with pytest.raises(ValueError, match=r"its work names \['rounds'\]"):
        declare(DOCSTRING, "... rounds")
