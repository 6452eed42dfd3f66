"""Typed JSON documents: OpenAPI is made from them, and tests compare the answers with them.

Classes are named as their schemas; ``Document`` is appended to names that the service already uses.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from service.engine.call import Dtype, Hessian, Reduction

Encoding = Literal["json", "base64"]
TENSOR = (
    "A number, rectangular nested arrays of numbers, or "
    '{"dtype": "float32", "shape": [2, 3], "data": "<base64 of row-major, little-endian bytes>"}.'
)
NULL = "null is the same as absent."
"""Some generated clients send null for every untyped member that is not set."""
Map = dict[str, Any]
Names = list[str]


class PackedTensor(TypedDict):
    """A tensor as bytes, in requests and in answers with encoding base64."""

    dtype: Literal[
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"
    ]
    shape: list[int]
    data: Annotated[
        str,
        Field(
            description="Standard base64 with padding, without line breaks, of the row-major, little-endian bytes."
        ),
    ]


class FaultDocument(TypedDict):
    """One thing wrong."""

    pointer: Annotated[str, Field(description="JSON Pointer into the request.")]
    code: str
    detail: str
    line: NotRequired[Annotated[int, Field(description="The line of the fault in NDJSON and CSV, from 1.")]]
    column: NotRequired[
        Annotated[int, Field(description="The column of the fault in an expression, in characters from 1.")]
    ]


class ProblemDocument(TypedDict):
    """The problem with a request (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FaultDocument]


class Status(TypedDict):
    """The status of the process or of its device."""

    status: str


class LossBrief(TypedDict):
    """A loss in the list."""

    name: str
    title: str
    tasks: Names
    summary: str
    differentiable: bool


class LossList(TypedDict):
    """The matching losses."""

    losses: list[LossBrief]


class InputEntry(TypedDict):
    """An input of a loss."""

    name: str
    role: Literal["prediction", "target"]
    kind: Literal["float", "int", "bool"]
    dims: Names
    domain: str
    optional: bool
    description: str
    forms: NotRequired[Annotated[list[Map], Field(description="All forms, if there are several.")]]


class Range(TypedDict):
    """The bounds of the unreduced loss."""

    least: NotRequired[Annotated[float, Field(description="Absent if there is no lower bound.")]]
    most: NotRequired[Annotated[float, Field(description="Absent if there is no upper bound.")]]
    depends_on_params: Annotated[
        bool, Field(description="true: the bounds apply to the params of the example.")
    ]


class ScalesDocument(TypedDict):
    """How a loss scales with its inputs."""

    degree: Annotated[
        float,
        Field(description="Multiplying the inputs by a factor multiplies the loss by factor**degree."),
    ]
    inputs: Annotated[Names, Field(description="The inputs that are scaled together.")]
    entries: NotRequired[
        Annotated[
            int,
            Field(description="How many leading entries of the last axis are scaled, if not all."),
        ]
    ]
    along: NotRequired[Annotated[Names, Field(description="The params that are scaled with the inputs.")]]
    params: NotRequired[Annotated[Map, Field(description="The params for which this holds.")]]


class ShardsDocument(TypedDict):
    """Whether the sums, gradients and divisors of a batch's shards add up to those of the batch."""

    add_up: bool
    along: NotRequired[Annotated[str, Field(description="The dimension along which the batch is split.")]]
    unless: NotRequired[Annotated[Names, Field(description="Params under which they do not.")]]
    only_with_divide_by: NotRequired[
        Annotated[
            bool,
            Field(
                description="true: the mean is not of the elements summed, so shards need divide_by instead of sums."
            ),
        ]
    ]


class LossEntry(LossBrief):
    """Everything in the catalogue about a loss."""

    aliases: Names
    keywords: Annotated[Names, Field(description="Search words for the loss.")]
    formula: Annotated[str, Field(description="LaTeX")]
    inputs: list[InputEntry]
    params: Annotated[Map, Field(description="The JSON Schema of the params.")]
    unreduced: Annotated[Names, Field(description="Dimensions of the loss before reduction.")]
    unreduced_forms: list[Map]
    range: Range
    shards: ShardsDocument
    scales: NotRequired[ScalesDocument]
    aux: Annotated[Names, Field(description="Names of extra outputs.")]
    elementwise: Annotated[
        Names,
        Field(
            description="Inputs each of whose elements moves one element of the loss: hessian works for them."
        ),
    ]
    exact_gradient: Annotated[
        bool, Field(description="false: the gradient differs from the derivative of the value, by design.")
    ]
    use_when: str
    pitfalls: str
    sources: Names
    example: Annotated[Map, Field(description="A request body that runs as it is.")]


EvaluatedLoss = Annotated[str, Field(description="The loss's name, even if the request used an alias.")]
Value = Annotated[
    Any,
    Field(
        description="A number for mean and sum, a tensor for none; null if it is not finite.",
        examples=[0.4170299470424652],
    ),
]
GradientsByName = Annotated[Map, Field(description="A tensor for each input differentiated.")]
AuxByName = Annotated[Map, Field(description="Extra named outputs, if the loss has any.")]
Nonfinite = Annotated[
    dict[str, int],
    Field(description="The number of non-finite elements of each output that has any."),
]

Change = Annotated[
    Any,
    Field(description="How the value changes along the tangents (Jacobian-vector product), of its shape."),
]
GradientChanges = Annotated[
    Map,
    Field(description="How each gradient changes along the tangents of all inputs (Hessian-vector product)."),
]
Diagonals = Annotated[
    Map,
    Field(
        description="The derivative of each element of each gradient by the element of the input at its place."
    ),
]


Divisor = Annotated[
    Any,
    Field(
        description="A number: what the mean divides by unless the request has divide_by, the sum of sample weights "
        "times the loss's own weights. Absent for none; null if it is not finite.",
        examples=[2.0],
    ),
]


class EvaluationDocument(TypedDict):
    """The result of a request for one loss."""

    loss: EvaluatedLoss
    value: Value
    gradients: GradientsByName
    divisor: NotRequired[Divisor]
    aux: NotRequired[AuxByName]
    tangent: NotRequired[Change]
    hessian_product: NotRequired[GradientChanges]
    hessian: NotRequired[Diagonals]
    nonfinite: NotRequired[Nonfinite]
    reduction: str
    dtype: str
    device: str


REQUEST = ConfigDict(extra="forbid")
"""Requests allow no other members. Answers may gain some."""
ReductionChoice = Annotated[
    Reduction, Field(description="How the unreduced loss becomes the value. The default is mean.")
]
DtypeChoice = Annotated[Dtype, Field(description="The dtype of the arithmetic. The default is float32.")]
EncodingChoice = Annotated[
    Encoding, Field(description="The encoding of tensors in the answer. The default is json.")
]
DivideBy = Annotated[
    float,
    Field(
        gt=0,
        description="What the mean divides by in place of its divisor, so that the shards of a batch add up to its "
        "mean; only with reduction mean.",
    ),
]
Gradients = Annotated[
    Any,
    Field(
        description="true: gradients of every prediction input; false: none; a list of input names: those. "
        f"The default is true. {NULL}",
        examples=[True],
    ),
]
Weight = Annotated[
    Any,
    Field(
        description="Finite weights >= 0, one for each element of the unreduced loss or broadcastable to it "
        f"from the left. {TENSOR} {NULL}",
        examples=[1.0],
    ),
]
Upstream = Annotated[
    Any,
    Field(
        description="Upstream gradient, of the value's shape: gradients become the vector-Jacobian product. "
        f"{TENSOR} {NULL}",
        examples=[1.0],
    ),
]
Tangents = Annotated[
    Map,
    Field(
        description="By input, a direction in which it moves, of its shape: the answer has tangent, and hessian_product for "
        f"the inputs of gradients. Inputs without one do not move. {NULL}"
    ),
]
HessianChoice = Annotated[
    Hessian,
    Field(
        description="diagonal: the second derivatives by each element of the inputs of gradients, in which the loss must be "
        "elementwise, as gradient boosting needs them."
    ),
]
Identity = Annotated[Any, Field(description=f"Any string or number, echoed, not necessarily unique. {NULL}")]
LossName = Annotated[str, Field(description="A loss's name or alias.")]
Params = Annotated[Map, Field(description="The loss's params.")]


class Options(TypedDict):
    """The fields of a request besides its inputs and params."""

    reduction: NotRequired[ReductionChoice]
    sample_weight: NotRequired[Weight]
    gradients: NotRequired[Gradients]
    grad_output: NotRequired[Upstream]
    dtype: NotRequired[DtypeChoice]
    encoding: NotRequired[EncodingChoice]
    divide_by: NotRequired[DivideBy]
    tangents: NotRequired[Tangents]
    hessian: NotRequired[HessianChoice]


class EvaluationRequest(Options):
    """A request for the loss named in the path."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    inputs: Annotated[Map, Field(description=f"The loss's tensors by name, each: {TENSOR}")]
    params: NotRequired[Params]


class BatchItem(Options):
    """A request for any loss, metric or composition."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    id: NotRequired[Identity]
    loss: NotRequired[LossName]
    metric: NotRequired[
        Annotated[
            str,
            Field(
                description="A metric's name or alias, in place of a loss: the item takes the members of a MetricRequest."
            ),
        ]
    ]
    terms: NotRequired[
        Annotated[
            Any,
            Field(
                description="Terms, in place of a loss: the item takes the members of a CompositionRequest. "
                f"{NULL}",
                examples=[{"scale": {"expression": "mean(z)"}}],
            ),
        ]
    ]
    inputs: NotRequired[Annotated[Map, Field(description="The loss's tensors by name.")]]
    params: NotRequired[Params]


class BatchDefaults(TypedDict):
    """Values for items that do not set their own."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    loss: NotRequired[LossName]
    params: NotRequired[Params]
    reduction: NotRequired[ReductionChoice]
    gradients: NotRequired[Gradients]
    dtype: NotRequired[DtypeChoice]
    encoding: NotRequired[EncodingChoice]
    divide_by: NotRequired[DivideBy]
    hessian: NotRequired[HessianChoice]


class BatchRequest(TypedDict):
    """Items of any losses."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    items: list[BatchItem]
    defaults: NotRequired[BatchDefaults]


class BatchResult(TypedDict):
    """The result of an item: the members of an evaluation, a measurement or a composition, or an error."""

    id: NotRequired[Identity]
    status: Literal["ok", "error"]
    loss: NotRequired[EvaluatedLoss]
    metric: NotRequired[
        Annotated[str, Field(description="The metric's name; the other members are those of a Measurement.")]
    ]
    value: NotRequired[Value]
    undefined: NotRequired[Annotated[dict[str, str], Field(description="See Measurement.")]]
    interval: NotRequired[Annotated[Any, Field(description="See Measurement.")]]
    slices: NotRequired[Annotated[Map, Field(description="See Measurement.")]]
    samples: NotRequired[int]
    signature: NotRequired[str]
    terms: NotRequired[Annotated[Any, Field(description="See Composition.", examples=[{}])]]
    gradients: NotRequired[GradientsByName]
    divisor: NotRequired[Divisor]
    aux: NotRequired[AuxByName]
    tangent: NotRequired[Change]
    hessian_product: NotRequired[GradientChanges]
    hessian: NotRequired[Diagonals]
    nonfinite: NotRequired[Nonfinite]
    reduction: NotRequired[str]
    dtype: NotRequired[str]
    device: NotRequired[str]
    error: NotRequired[ProblemDocument]
    line: NotRequired[Annotated[int, Field(description="In a stream, the number of a bad line, from 1.")]]


class BatchSummary(TypedDict):
    """A summary of the items of one loss."""

    count: int
    mean: float


class BatchResults(TypedDict):
    """The result of each item, in order."""

    results: list[BatchResult]
    succeeded: int
    failed: int
    summary: Annotated[
        dict[str, BatchSummary],
        Field(description="By loss, over its items with a finite number as value."),
    ]
