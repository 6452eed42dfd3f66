"""Typed JSON documents of metrics, as `service.wire.documents` has those of losses."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.wire.documents import NULL, REQUEST, TENSOR, Map, Names

SampleWeight = Annotated[
    Any, Field(description=f"Finite weights >= 0, one a sample. {TENSOR} {NULL}", examples=[[1.0, 2.0]])
]
SliceValues = Annotated[
    Map,
    Field(
        description="By the name of a column, a string, integer or boolean a sample; the answer has a result for each value."
    ),
]
Level = Annotated[
    float,
    Field(
        description="The level of intervals of numbers, such as 0.95. By default there are none; arrays have none.",
        gt=0,
        lt=1,
    ),
]
Replicates = Annotated[int, Field(description="Replicates of the bootstrap. The default is 200.")]
Seed = Annotated[int, Field(description="Seed of the bootstrap. The default is 0.")]
LikePeer = Annotated[
    Literal["sklearn", "torchmetrics", "coco", "voc2007", "voc2012", "trec_eval"],
    Field(
        description="Follow the conventions of a peer where they differ; `likes` of an entry lists such peers."
    ),
]
MetricName = Annotated[str, Field(description="The metric's name, even if the request used an alias.")]
MetricValue = Annotated[
    Any,
    Field(
        description="A number, or an object of numbers, lists and null for what is undefined.", examples=[0.8]
    ),
]
Reasons = Annotated[
    dict[str, str],
    Field(description="The reason of each null, by its path in the value; `value` if that is null."),
]
IntervalBounds = Annotated[
    Any,
    Field(
        description="A pair of bounds for each number, in the shape of the value; null where too few replicates define it. Arrays, "
        "such as curves and matrices, have no interval: absent if the value is nothing else.",
        examples=[[0.7, 0.9]],
    ),
]


class MetricBrief(TypedDict):
    """A metric in the list."""

    name: str
    title: str
    tasks: Names
    summary: str
    higher_is_better: NotRequired[
        Annotated[bool, Field(description="Absent for what is no score, such as a confusion matrix.")]
    ]


class MetricList(TypedDict):
    """The matching metrics."""

    metrics: list[MetricBrief]


class MetricInput(TypedDict):
    """An input of a metric."""

    name: str
    role: Literal["prediction", "target"]
    kind: Literal["float", "int", "bool", "json"]
    dims: Names
    domain: str
    optional: bool
    description: str
    forms: NotRequired[Annotated[list[Map], Field(description="All forms, if there are several.")]]
    values: NotRequired[Annotated[Map, Field(description="The JSON Schema of the value of a sample.")]]


class MetricEntry(MetricBrief):
    """Everything in the catalogue about a metric."""

    aliases: Names
    keywords: Annotated[Names, Field(description="Search words for the metric.")]
    formula: Annotated[str, Field(description="LaTeX")]
    inputs: list[MetricInput]
    params: Annotated[Map, Field(description="The JSON Schema of the params.")]
    likes: Annotated[Names, Field(description="The peers whose conventions `like` can choose.")]
    interval: Annotated[
        Literal["analytic", "bootstrap"],
        Field(description="How intervals are made; analytic ones only where a sample has one decision."),
    ]
    per_sample: Annotated[bool, Field(description="Whether each sample has a value.")]
    use_when: str
    pitfalls: str
    sources: Names
    example: Annotated[Map, Field(description="A request body that runs as it is.")]


class MetricOptions(TypedDict):
    """The fields of a request for a metric besides its inputs and params."""

    like: NotRequired[LikePeer]
    sample_weight: NotRequired[SampleWeight]
    slices: NotRequired[SliceValues]
    interval: NotRequired[Level]
    replicates: NotRequired[Replicates]
    seed: NotRequired[Seed]


class MetricRequest(MetricOptions):
    """A request for the metric named in the path."""

    __pydantic_config__ = REQUEST  # pyright: ignore[reportGeneralTypeIssues]

    inputs: Annotated[Map, Field(description="The metric's tensors and lists by name.")]
    params: NotRequired[Annotated[Map, Field(description="The metric's params.")]]


class SliceDocument(TypedDict):
    """The result of the samples of a slice."""

    value: MetricValue
    undefined: NotRequired[Reasons]
    interval: NotRequired[IntervalBounds]
    samples: int


class MeasurementDocument(SliceDocument):
    """The result of a request for a metric."""

    metric: MetricName
    slices: NotRequired[
        Annotated[dict[str, SliceDocument], Field(description="By column=value, such as country=de.")]
    ]
    signature: Annotated[
        str,
        Field(
            description="What two results must share to be comparable: name, params, conventions, version."
        ),
    ]
