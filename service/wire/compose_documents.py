"""Typed JSON documents of compositions, as `service.wire.documents` has those of losses."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.wire.documents import (
    NULL,
    REQUEST,
    TENSOR,
    AuxByName,
    DtypeChoice,
    EncodingChoice,
    LossName,
    Map,
    Nonfinite,
    Params,
)

Weighting = Annotated[
    float, Field(description="The term's factor in the default total. The default is 1; none beside `total`.")
]


class LossTermDocument(TypedDict):
    """A loss of the catalogue as a term."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    loss: LossName
    inputs: Annotated[
        dict[str, str],
        Field(description="By the names of the loss's inputs, expressions over the shared inputs."),
    ]
    params: NotRequired[Params]
    reduction: NotRequired[
        Annotated[Literal["mean", "sum"], Field(description="How the unreduced loss becomes the value.")]
    ]
    sample_weight: NotRequired[Annotated[str, Field(description="The name of an input with the weights.")]]
    divide_by: NotRequired[
        Annotated[
            float, Field(description="A number for the mean to divide by, in place of its divisor.", gt=0)
        ]
    ]
    weight: NotRequired[Weighting]


class ExpressionTermDocument(TypedDict):
    """An expression as a term."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    expression: Annotated[
        str, Field(description="An expression over the shared inputs that yields one number.")
    ]
    weight: NotRequired[Weighting]


class CompositionOptions(TypedDict):
    """The fields of a composition besides its inputs and terms."""

    total: NotRequired[
        Annotated[
            str,
            Field(
                description="An expression over the terms and the inputs. The default is the sum of weight times term."
            ),
        ]
    ]
    gradients: NotRequired[
        Annotated[
            Any,
            Field(
                description="true: gradients of every floating input that a term uses as a prediction or an expression uses; "
                f"false: none; a list of input names: those. The default is true. {NULL}",
                examples=[True],
            ),
        ]
    ]
    grad_output: NotRequired[
        Annotated[float, Field(description="A factor of all gradients. The default is 1.")]
    ]
    per_term: NotRequired[
        Annotated[
            Literal["values", "norms", "gradients"],
            Field(description="What is reported of each term, before its weight. The default is values."),
        ]
    ]
    dtype: NotRequired[DtypeChoice]
    encoding: NotRequired[EncodingChoice]


class CompositionRequest(CompositionOptions):
    """Several terms over shared inputs."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    inputs: Annotated[
        Map, Field(description=f"The shared tensors by names that the client chooses, each: {TENSOR}")
    ]
    terms: Annotated[
        dict[str, Any],
        Field(description="By names that the client chooses, each a LossTerm or an ExpressionTerm."),
    ]


class TermDocument(TypedDict):
    """The results of a term, before its weight."""

    value: Annotated[Any, Field(description="A number; null if it is not finite.", examples=[0.9])]
    divisor: NotRequired[
        Annotated[
            float, Field(description="The sum that the loss's mean divides by; absent for expressions.")
        ]
    ]
    norms: NotRequired[
        Annotated[Map, Field(description="The Euclidean norm of the term's gradient by input.")]
    ]
    gradients: NotRequired[Annotated[Map, Field(description="The term's gradient by input.")]]
    aux: NotRequired[AuxByName]


class CompositionDocument(TypedDict):
    """The result of a composition."""

    value: Annotated[Any, Field(description="A number; null if it is not finite.", examples=[1.93])]
    terms: dict[str, TermDocument]
    gradients: Annotated[Map, Field(description="A tensor for each input differentiated.")]
    nonfinite: NotRequired[Nonfinite]
    dtype: str
    device: str
