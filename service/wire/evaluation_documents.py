"""Typed JSON documents of stored evaluations, as `service.wire.documents` has those of losses."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.wire.documents import NULL, Map, Names
from service.wire.metric_documents import (
    IntervalBounds,
    Level,
    LikePeer,
    MetricValue,
    Reasons,
    Replicates,
    Seed,
)

Expected = Annotated[
    Any,
    Field(description="The number of rows that the spec expects; null if it does not say.", examples=[50000]),
]
Complete = Annotated[bool, Field(description="Whether at least the expected number of rows is there.")]
ShownColumns = Annotated[
    Map, Field(description="Slices, the weight, and what the metric keeps of the row, by names.")
]


class ColumnNames(TypedDict):
    """The names of the columns of parts by what they hold: inputs of the metrics by name, and what follows."""

    predictions: NotRequired[
        Annotated[str, Field(description="Column of predictions, also for a loss's first prediction.")]
    ]
    targets: NotRequired[
        Annotated[str, Field(description="Column of targets, also for a loss's first target.")]
    ]
    id: NotRequired[
        Annotated[
            str,
            Field(
                description=f"Column of ids. Without it an id is the part's key and the row's place. {NULL}"
            ),
        ]
    ]
    slices: NotRequired[Annotated[Names, Field(description="Columns by whose values results may be sliced.")]]
    weight: NotRequired[Annotated[str, Field(description=f"Column of weights, finite and >= 0. {NULL}")]]


class SpecOptions(TypedDict):
    """The members of a spec. Params that its metrics share, such as task and num_classes, stand beside them."""

    columns: ColumnNames
    metrics: Annotated[
        list[Any],
        Field(
            description='Names of metrics, {"metric": name} or {"loss": name}, which may have `params`, `inputs` (the '
            "column of each input) and a `name` in results.",
            examples=[["accuracy", {"loss": "cross_entropy"}]],
        ),
    ]
    task: NotRequired[Annotated[str, Field(description="The param task of all metrics that have it.")]]
    num_classes: NotRequired[
        Annotated[int, Field(description="The param num_classes of all metrics that have it.")]
    ]
    like: NotRequired[LikePeer]
    expect: NotRequired[Annotated[int, Field(description="The number of rows to expect.")]]
    expires_s: NotRequired[
        Annotated[float, Field(description="Seconds after which the evaluation is deleted.", gt=0)]
    ]
    duplicates: NotRequired[
        Annotated[
            Literal["refuse", "first"],
            Field(
                description="Whether an id with another content is refused, or its first content counts. The default is refuse."
            ),
        ]
    ]


class EvaluationSpec(SpecOptions):
    """What an evaluation computes, and from which columns."""


class StatelessEvaluation(SpecOptions):
    """A spec with its data; nothing of it is stored."""

    data: Annotated[Map, Field(description="The columns by name, each a tensor or a list.")]
    slices: NotRequired[
        Annotated[Names, Field(description="Columns to slice by. The default is all of the spec.")]
    ]
    interval: NotRequired[Level]
    replicates: NotRequired[Replicates]
    seed: NotRequired[Seed]


class EvaluationBrief(TypedDict):
    """An evaluation in the list."""

    name: str
    rows: Annotated[int, Field(description="Rows, each id counted once.")]
    expected: Expected
    complete: Complete
    created_at: str
    expires_at: str


class CreatedEvaluation(EvaluationBrief):
    """An evaluation, with all defaults of its spec filled in."""

    spec: Map


class EvaluationList(TypedDict):
    """A page of the key's evaluations, in the order of their names."""

    evaluations: list[EvaluationBrief]
    next: Annotated[Any, Field(description="The cursor of the next page; null on the last one.")]


class StoredPart(TypedDict):
    """A part that is stored."""

    rows: int
    new: Annotated[int, Field(description="Rows whose ids were not there before.")]
    seen: Annotated[int, Field(description="Rows that were there already.")]


class EvaluatedMetric(TypedDict):
    """The result of one metric."""

    value: MetricValue
    undefined: NotRequired[Reasons]
    interval: NotRequired[IntervalBounds]
    samples: int
    signature: NotRequired[
        Annotated[str, Field(description="What two results must share to be comparable; not in slices.")]
    ]


class EvaluatedSlice(TypedDict):
    """The results of a slice."""

    rows: int
    results: dict[str, EvaluatedMetric]


class EvaluatedDifference(TypedDict):
    """By how much a number is larger than that of the other evaluation, over the ids that both have."""

    value: Annotated[Any, Field(description="A number; null if either is undefined.", examples=[0.012])]
    interval: NotRequired[list[float]]
    undefined: NotRequired[Annotated[str, Field(description="The reason, if the value is null.")]]


class EvaluationResults(TypedDict):
    """The results of an evaluation."""

    name: NotRequired[Annotated[str, Field(description="Absent if it is not stored.")]]
    rows: int
    expected: Expected
    complete: Complete
    results: dict[str, EvaluatedMetric]
    slices: NotRequired[Annotated[dict[str, EvaluatedSlice], Field(description="By column=value.")]]
    difference: NotRequired[
        Annotated[dict[str, EvaluatedDifference], Field(description="By metric and path, such as f1.macro.")]
    ]
    rows_paired: NotRequired[Annotated[int, Field(description="Ids that both evaluations have.")]]


class EvaluationRow(TypedDict):
    """A row, with its value of a metric."""

    id: str
    part: str
    value: Annotated[Any, Field(description="null if it is infinite.", examples=[2.5])]
    columns: ShownColumns


class EvaluationRows(TypedDict):
    """The rows with the worst values, the worst first."""

    rows: list[EvaluationRow]
